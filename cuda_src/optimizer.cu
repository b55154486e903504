// Optimizer steps over the flat parameter vector, and what goes with them.
//
// - sgd, adam: one launch, one read and one write of each state array; weight decay ends at element `decayed`.
// - square_sum, gradient_norm: √(Σ g²) in two stages, in double, so that nothing overflows and the sum is the same in every run.
// - Never frozen into a CUDA graph: learning_rate, step and gradient_scale are read here, from device memory.

#include "block_sum.cuh"
#include "vectors.cuh"

// gradient_scale · gradient + decay · parameter, the gradient that a step sees.
template <class T> __device__ T seen_gradient(T gradient, T scale, T decay, T parameter) {
    return scale * gradient + decay * parameter;
}

// velocity ← momentum·velocity + g;  parameter ← parameter - η velocity, with Nesterov - η (g + momentum·velocity).
template <class T, bool MOMENTUM>
__global__ void __launch_bounds__(THREADS)
    sgd(T* parameter, const T* gradient, T* velocity, const double* learning_rate, const T* gradient_scale, T momentum,
        bool nesterov, T weight_decay, Index decayed, Index size) {
    constexpr int N = PACK<T>;
    const int ahead = lead(parameter);
    const bool packed = lead(gradient) == ahead && (!MOMENTUM || lead(velocity) == ahead);
    const Share<N> share = share_of_tile<N>(blockIdx.x, size, ahead, packed);
    const T eta = T(learning_rate[0]);
    const T scale = gradient_scale ? gradient_scale[0] : T(1);
    if (isnan(scale)) return;  // the gradient overflowed, and this step is left out
    Pack<T, N> p = share.load(parameter), v;
    const Pack<T, N> g = share.load(gradient);
    if (MOMENTUM) v = share.load(velocity);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const T decay = share.index(i) < decayed ? weight_decay : T(0);
        T update = seen_gradient(g.at[i], scale, decay, p.at[i]);
        if (MOMENTUM) {
            v.at[i] = momentum * v.at[i] + update;
            update = nesterov ? update + momentum * v.at[i] : v.at[i];
        }
        p.at[i] -= eta * update;
    }
    share.store(parameter, p);
    if (MOMENTUM) share.store(velocity, v);
}

// 1 - β^t = -(e^{t ln β} - 1) keeps its digits where β^t is close to 1.
template <class T> __device__ T one_minus_power(T log_beta, long long t) {
    return -expm1(T(t) * log_beta);
}

// Blocks of a multiprocessor at least. 0 leaves it to the compiler, which from sm_120 on stops at 64 registers for adam in
// float64 and spills the rest.
template <class T> constexpr int ADAM_BLOCKS = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
template <> constexpr int ADAM_BLOCKS<double> = 3;
#endif

// One step of Adam, of AdamW when decoupled. mean and square hold the moments without their factor: with
// m = (1-β₁) mean, v = (1-β₂) square and c_i = 1 - β_i^t,
//     parameter ← parameter - η (m/c₁) / (√(v/c₂) + ε) = parameter - η' mean / (√square + ε')
template <class T>
__global__ void __launch_bounds__(THREADS, ADAM_BLOCKS<T>)
    adam(T* parameter, const T* gradient, T* mean, T* square, const double* learning_rate, const long long* step,
         const T* gradient_scale, T beta1, T beta2, T log_beta1, T log_beta2, T one_minus_beta1, T one_minus_beta2, T eps,
         T weight_decay, bool decoupled, Index decayed, Index size) {
    constexpr int N = PACK<T>;
    const int ahead = lead(parameter);
    const bool packed = lead(gradient) == ahead && lead(mean) == ahead && lead(square) == ahead;
    const Share<N> share = share_of_tile<N>(blockIdx.x, size, ahead, packed);
    const T eta = T(learning_rate[0]);
    const T scale = gradient_scale ? gradient_scale[0] : T(1);
    if (isnan(scale)) return;  // the gradient overflowed, and this step is left out
    const T root = sqrt(one_minus_power(log_beta2, step[0]) / one_minus_beta2);
    const T eta_scaled = eta * one_minus_beta1 / one_minus_power(log_beta1, step[0]) * root;
    const T eps_scaled = eps * root;
    Pack<T, N> p = share.load(parameter), m = share.load(mean), v = share.load(square);
    const Pack<T, N> g = share.load(gradient);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const T decay = share.index(i) < decayed ? weight_decay : T(0);
        const T seen = seen_gradient(g.at[i], scale, decoupled ? T(0) : decay, p.at[i]);
        m.at[i] = beta1 * m.at[i] + seen;
        v.at[i] = beta2 * v.at[i] + seen * seen;
        if (decoupled) p.at[i] *= T(1) - eta * decay;
        p.at[i] -= eta_scaled * m.at[i] / (sqrt(v.at[i]) + eps_scaled);
    }
    share.store(parameter, p);
    share.store(mean, m);
    share.store(square, v);
}

// partial_b = Σ g² over every gridDim.x-th tile, from tile b on.
template <class T>
__global__ void __launch_bounds__(THREADS) square_sum(const T* gradient, double* partial, Index size, Index tiles) {
    constexpr int N = PACK<T>;
    double sum = 0;
#pragma unroll 4
    for (Index tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Pack<T, N> g = share_of_tile<N>(tile, size, lead(gradient), true).load(gradient);
#pragma unroll
        for (int i = 0; i < N; ++i) sum += double(g.at[i]) * double(g.at[i]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// out_0 = √(Σ partial), in one block.
__global__ void __launch_bounds__(THREADS) gradient_norm(const double* partial, double* out, int count) {
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[0] = sqrt(sum);
}

// out_0 = min(1, max_norm / norm)
template <class T> __global__ void clip_scale(const double* norm, T* out, double max_norm) {
    out[0] = max_norm < norm[0] ? T(max_norm / norm[0]) : T(1);
}

// What is smaller than `threshold` becomes 0.
template <class T> __global__ void __launch_bounds__(THREADS) flush_subnormals(T* state, T threshold, Index size) {
    constexpr int N = PACK<T>;
    const Share<N> share = share_of_tile<N>(blockIdx.x, size, lead(state), true);
    Pack<T, N> s = share.load(state);
#pragma unroll
    for (int i = 0; i < N; ++i) s.at[i] = fabs(s.at[i]) < threshold ? T(0) : s.at[i];
    share.store(state, s);
}

// counter_0 += 1: the step of an optimizer, the draw of a dropout mask.
template <class I> __global__ void increment(I* counter) {
    counter[0] += 1;
}
