// a = act(z + b) and its backward pass.
//
// - bias_activation adds the bias and activates in one pass; a may be z.
// - bias_activation_backward turns ∂C/∂a into ∂C/∂z in place, and sums the bias gradient's columns on the way: one read
//   of each array and one write, and no array of act'(z).
// - activations.cuh is made from the table in gpu_nn/kernels/activations.py: a struct for each activation.

#include "activations.cuh"
#include "columns.cuh"

// Blocks of a multiprocessor at least. 0 leaves it to the compiler, which for these few stops at 64 or 80 registers and
// spills the rest; with two blocks each thread may have 128. In float64 they wait for arithmetic, not for memory.
template <class S, class Activation> constexpr int FORWARD_BLOCKS = 0;
template <> constexpr int FORWARD_BLOCKS<double, sigmoid_activation> = 2;
template <> constexpr int FORWARD_BLOCKS<double, silu_activation> = 2;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
template <> constexpr int FORWARD_BLOCKS<__half, elu_activation> = 2;
template <> constexpr int FORWARD_BLOCKS<__nv_bfloat16, elu_activation> = 2;
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <> constexpr int FORWARD_BLOCKS<__nv_bfloat16, gelu_activation> = 2;
#endif
template <class S, class Activation> constexpr int BACKWARD_BLOCKS = 0;
template <> constexpr int BACKWARD_BLOCKS<double, gelu_activation> = 2;

template <int ROWS, bool WHOLE, class Activation, class S, int N>
__device__ void activate_rows(const Columns<N>& columns, Index row, S* z, const Compute<S> (&bias)[N], S* a, bool keep_z) {
    typedef Compute<S> C;
    Pack<S, N> pack[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; ++k) pack[k] = columns.template share<WHOLE>(row + k).load(z);
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        const Share<N> share = columns.template share<WHOLE>(row + k);
        Pack<S, N> activated;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const C sum = C(pack[k].at[i]) + bias[i];
            pack[k].at[i] = S(sum);
            activated.at[i] = S(Activation::forward(sum));
        }
        if (keep_z) share.store(z, pack[k]);
        share.store(a, activated);
    }
}

// z += b, a = act(z). b may be null.
template <class S, class Activation>
__global__ void __launch_bounds__(THREADS, (FORWARD_BLOCKS<S, Activation>))
    bias_activation(S* z, const S* b, S* a, int width, int span, int rows, Index size) {
    constexpr int N = PACK<S>;
    const Columns<N> columns(size, width, span, rows, lead(z) == 0 && lead(a) == 0);
    Compute<S> bias[N] = {};
    if (b)
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (columns.column(i) < span) bias[i] = Compute<S>(b[columns.column(i) % width]);
    const bool keep_z = b && a != z;
    Index row = columns.first_row;
#pragma unroll 1
    for (; row + DEPTH <= columns.whole_rows; row += DEPTH)
        activate_rows<DEPTH, true, Activation>(columns, row, z, bias, a, keep_z);
#pragma unroll 1
    for (; row < columns.last_row; ++row) activate_rows<1, false, Activation>(columns, row, z, bias, a, keep_z);
}

template <int ROWS, bool WHOLE, class Activation, class S, int N>
__device__ void derive_rows(const Columns<N>& columns, Index row, S* da, const S* saved, Compute<S> (&sum)[N]) {
    typedef Compute<S> C;
    Pack<S, N> d[ROWS], s[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        d[k] = columns.template share<WHOLE>(row + k).load(da);
        s[k] = columns.template share<WHOLE>(row + k).load(saved);
    }
    C of_rows[N] = {};
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const C dz = C(d[k].at[i]) * Activation::derivative(C(s[k].at[i]));
            of_rows[i] += dz;
            d[k].at[i] = S(dz);
        }
        columns.template share<WHOLE>(row + k).store(da, d[k]);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += of_rows[i];
}

// da ← da · act'(saved), and the partial column sums of the result unless `partial` is null.
template <class S, class Activation>
__global__ void __launch_bounds__(THREADS, (BACKWARD_BLOCKS<S, Activation>))
    bias_activation_backward(S* da, const S* saved, Compute<S>* partial, int width, int span, int rows, Index size) {
    constexpr int N = PACK<S>;
    const Columns<N> columns(size, width, span, rows, lead(da) == 0 && lead(saved) == 0);
    Compute<S> sum[N] = {};
    Index row = columns.first_row;
#pragma unroll 1
    for (; row + DEPTH <= columns.whole_rows; row += DEPTH)
        derive_rows<DEPTH, true, Activation>(columns, row, da, saved, sum);
#pragma unroll 1
    for (; row < columns.last_row; ++row) derive_rows<1, false, Activation>(columns, row, da, saved, sum);
    if (partial) store_sums(columns, sum, partial);
}
