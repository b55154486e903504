// Optimizer steps over the flat parameter vector, the gradient's norm, and counters.
//
// - sgd, adam: one launch, one read and one write of each state array; weight decay ends at element `decayed`.
// - square_sum, gradient_norm: √(Σ g²) in two stages, in double, so that nothing overflows and the sum is the same in
//   every run.
// - learning_rate, step and gradient_scale are read from device memory, so that a CUDA graph sees their new values.

#include "block_sum.cuh"
#include "vectors.cuh"

// gradient_scale · gradient + decay · parameter.
template <class T> __device__ T effective_gradient(T gradient, T scale, T decay, T parameter) {
    return scale * gradient + decay * parameter;
}

// velocity ← momentum·velocity + g;  parameter ← parameter - η velocity, with Nesterov - η (g + momentum·velocity).
template <class T, bool MOMENTUM>
__global__ void __launch_bounds__(THREADS)
    sgd(T* parameter, const T* gradient, T* velocity, const double* learning_rate, const T* gradient_scale, T momentum,
        bool nesterov, T weight_decay, Index decayed, Index size) {
    constexpr int N = VECTOR_WIDTH<T>;
    const int misaligned = misalignment(parameter);
    const bool vectorized = misalignment(gradient) == misaligned && (!MOMENTUM || misalignment(velocity) == misaligned);
    const ThreadSlice<N> slice = slice_of_tile<N>(blockIdx.x, size, misaligned, vectorized);
    const T eta = T(learning_rate[0]);
    const T scale = gradient_scale ? gradient_scale[0] : T(1);
    if (isnan(scale)) return;  // the gradient overflowed: skip this step
    Vector<T, N> p = slice.load(parameter), v;
    const Vector<T, N> g = slice.load(gradient);
    if (MOMENTUM) v = slice.load(velocity);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const T decay = slice.index(i) < decayed ? weight_decay : T(0);
        T update = effective_gradient(g.at[i], scale, decay, p.at[i]);
        if (MOMENTUM) {
            v.at[i] = momentum * v.at[i] + update;
            update = nesterov ? update + momentum * v.at[i] : v.at[i];
        }
        p.at[i] -= eta * update;
    }
    slice.store(parameter, p);
    if (MOMENTUM) slice.store(velocity, v);
}

// 1 - β^t = -(e^{t ln β} - 1) keeps its digits where β^t is close to 1.
template <class T> __device__ T one_minus_power(T log_beta, long long t) {
    return -expm1(T(t) * log_beta);
}

// Minimum of resident blocks on a multiprocessor. 0 leaves it to the compiler, which from sm_120 on stops at 64
// registers for adam in float64 and spills the rest.
template <class T> constexpr int ADAM_BLOCKS = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
template <> constexpr int ADAM_BLOCKS<double> = 3;
#endif

// One step of Adam, of AdamW when decoupled. mean and square hold the moments without their factors: with
// m = (1-β₁) mean, v = (1-β₂) square and c_i = 1 - β_i^t,
//     parameter ← parameter - η (m/c₁) / (√(v/c₂) + ε) = parameter - η' mean / (√square + ε')
template <class T>
__global__ void __launch_bounds__(THREADS, ADAM_BLOCKS<T>)
    adam(T* parameter, const T* gradient, T* mean, T* square, const double* learning_rate, const long long* step,
         const T* gradient_scale, T beta1, T beta2, T log_beta1, T log_beta2, T one_minus_beta1, T one_minus_beta2, T eps,
         T weight_decay, bool decoupled, Index decayed, Index size) {
    constexpr int N = VECTOR_WIDTH<T>;
    const int misaligned = misalignment(parameter);
    const bool vectorized = misalignment(gradient) == misaligned && misalignment(mean) == misaligned &&
                            misalignment(square) == misaligned;
    const ThreadSlice<N> slice = slice_of_tile<N>(blockIdx.x, size, misaligned, vectorized);
    const T eta = T(learning_rate[0]);
    const T scale = gradient_scale ? gradient_scale[0] : T(1);
    if (isnan(scale)) return;  // the gradient overflowed: skip this step
    const T root = sqrt(one_minus_power(log_beta2, step[0]) / one_minus_beta2);
    const T eta_scaled = eta * one_minus_beta1 / one_minus_power(log_beta1, step[0]) * root;
    const T eps_scaled = eps * root;
    Vector<T, N> p = slice.load(parameter), m = slice.load(mean), v = slice.load(square);
    const Vector<T, N> g = slice.load(gradient);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const T decay = slice.index(i) < decayed ? weight_decay : T(0);
        const T grad = effective_gradient(g.at[i], scale, decoupled ? T(0) : decay, p.at[i]);
        m.at[i] = beta1 * m.at[i] + grad;
        v.at[i] = beta2 * v.at[i] + grad * grad;
        if (decoupled) p.at[i] *= T(1) - eta * decay;
        p.at[i] -= eta_scaled * m.at[i] / (sqrt(v.at[i]) + eps_scaled);
    }
    slice.store(parameter, p);
    slice.store(mean, m);
    slice.store(square, v);
}

// partial_b = Σ g² over every gridDim.x-th tile, from tile b on.
template <class T>
__global__ void __launch_bounds__(THREADS) square_sum(const T* gradient, double* partial, Index size, Index tiles) {
    constexpr int N = VECTOR_WIDTH<T>;
    double sum = 0;
#pragma unroll 4
    for (Index tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Vector<T, N> g = slice_of_tile<N>(tile, size, misalignment(gradient), true).load(gradient);
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

// Sets what is smaller than `threshold` to 0.
template <class T> __global__ void __launch_bounds__(THREADS) flush_subnormals(T* state, T threshold, Index size) {
    constexpr int N = VECTOR_WIDTH<T>;
    const ThreadSlice<N> slice = slice_of_tile<N>(blockIdx.x, size, misalignment(state), true);
    Vector<T, N> s = slice.load(state);
#pragma unroll
    for (int i = 0; i < N; ++i) s.at[i] = fabs(s.at[i]) < threshold ? T(0) : s.at[i];
    slice.store(state, s);
}

// counter_0 += 1: the step of an optimizer, the draw of a dropout mask.
template <class I> __global__ void increment(I* counter) {
    counter[0] += 1;
}
