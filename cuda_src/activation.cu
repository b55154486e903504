// a = act(z + b) and its backward pass.
//
// - bias_activation adds the bias and applies act in one pass; a may be z.
// - bias_activation_backward replaces ∂C/∂a by ∂C/∂z in place and sums its columns for the bias gradient in the same pass:
//   one read of each array and one write, and no array of act'(z).
// - activations.cuh is generated from the table in gpu_nn/kernels/activations.py: a struct for each activation.

#include "activations.cuh"
#include "columns.cuh"

// Minimum of resident blocks on a multiprocessor. 0 leaves it to the compiler, which for these few stops at 64 or 80
// registers and spills the rest; with two blocks each thread may have 128. In float64 they are compute-bound.
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

template <int ROWS, bool FULL, class Activation, class S, int N>
__device__ void activate_rows(const Columns<N>& columns, Index row, S* z, const Compute<S> (&bias)[N], S* a, bool keep_z) {
    typedef Compute<S> C;
    Vector<S, N> vector[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; ++k) vector[k] = columns.template slice<FULL>(row + k).load(z);
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        const ThreadSlice<N> slice = columns.template slice<FULL>(row + k);
        Vector<S, N> activated;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const C sum = C(vector[k].at[i]) + bias[i];
            vector[k].at[i] = S(sum);
            activated.at[i] = S(Activation::forward(sum));
        }
        if (keep_z) slice.store(z, vector[k]);
        slice.store(a, activated);
    }
}

// z += b, a = act(z). b may be null.
template <class S, class Activation>
__global__ void __launch_bounds__(THREADS, (FORWARD_BLOCKS<S, Activation>))
    bias_activation(S* z, const S* b, S* a, int width, int span, int rows, Index size) {
    constexpr int N = VECTOR_WIDTH<S>;
    const Columns<N> columns(size, width, span, rows, misalignment(z) == 0 && misalignment(a) == 0);
    Compute<S> bias[N] = {};
    if (b)
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (columns.column(i) < span) bias[i] = Compute<S>(b[columns.column(i) % width]);
    const bool keep_z = b && a != z;
    Index row = columns.first_row;
#pragma unroll 1
    for (; row + DEPTH <= columns.full_rows; row += DEPTH)
        activate_rows<DEPTH, true, Activation>(columns, row, z, bias, a, keep_z);
#pragma unroll 1
    for (; row < columns.last_row; ++row) activate_rows<1, false, Activation>(columns, row, z, bias, a, keep_z);
}

template <int ROWS, bool FULL, class Activation, class S, int N>
__device__ void derive_rows(const Columns<N>& columns, Index row, S* da, const S* saved, Compute<S> (&sum)[N]) {
    typedef Compute<S> C;
    Vector<S, N> d[ROWS], s[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        d[k] = columns.template slice<FULL>(row + k).load(da);
        s[k] = columns.template slice<FULL>(row + k).load(saved);
    }
    C row_sum[N] = {};
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const C dz = C(d[k].at[i]) * Activation::derivative(C(s[k].at[i]));
            row_sum[i] += dz;
            d[k].at[i] = S(dz);
        }
        columns.template slice<FULL>(row + k).store(da, d[k]);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += row_sum[i];
}

// da ← da · act'(saved), and the partial column sums of the result unless `partial` is null.
template <class S, class Activation>
__global__ void __launch_bounds__(THREADS, (BACKWARD_BLOCKS<S, Activation>))
    bias_activation_backward(S* da, const S* saved, Compute<S>* partial, int width, int span, int rows, Index size) {
    constexpr int N = VECTOR_WIDTH<S>;
    const Columns<N> columns(size, width, span, rows, misalignment(da) == 0 && misalignment(saved) == 0);
    Compute<S> sum[N] = {};
    Index row = columns.first_row;
#pragma unroll 1
    for (; row + DEPTH <= columns.full_rows; row += DEPTH)
        derive_rows<DEPTH, true, Activation>(columns, row, da, saved, sum);
#pragma unroll 1
    for (; row < columns.last_row; ++row) derive_rows<1, false, Activation>(columns, row, da, saved, sum);
    if (partial) store_sums(columns, sum, partial);
}
