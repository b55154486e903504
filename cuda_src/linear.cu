// Column sums, the one part of a layer's products that cuBLAS does not do: db_j = Σ_r dz_rj.
//
// - chunk_sums reads the matrix once and stores a partial sum for each chunk of rows.
// - column_sum adds the partial sums, in an order that is the same in every run.

#include "columns.cuh"

template <int ROWS, bool FULL, class S, int N>
__device__ void add_rows(const Columns<N>& columns, Index row, const S* a, Compute<S> (&sum)[N]) {
    typedef Compute<S> C;
    Vector<S, N> vector[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; ++k) vector[k] = columns.template slice<FULL>(row + k).load(a);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        C row_sum = 0;
#pragma unroll
        for (int k = 0; k < ROWS; ++k) row_sum += C(vector[k].at[i]);
        sum[i] += row_sum;
    }
}

// partial: as store_sums says.
template <class S>
__global__ void __launch_bounds__(THREADS)
    chunk_sums(const S* a, Compute<S>* partial, int width, int span, int rows, Index size) {
    constexpr int N = VECTOR_WIDTH<S>;
    const Columns<N> columns(size, width, span, rows, misalignment(a) == 0);
    Compute<S> sum[N] = {};
    Index row = columns.first_row;
#pragma unroll 1
    for (; row + DEPTH <= columns.full_rows; row += DEPTH) add_rows<DEPTH, true>(columns, row, a, sum);
#pragma unroll 1
    for (; row < columns.last_row; ++row) add_rows<1, false>(columns, row, a, sum);
    store_sums(columns, sum, partial);
}

constexpr int ROW_GROUPS = 32;

// out_j = Σ_r partial_rj, or out_j += where `add`. A block takes WARP columns with ROW_GROUPS warps.
template <class C, class S>
__global__ void __launch_bounds__(WARP* ROW_GROUPS) column_sum(const C* partial, S* out, Index rows, int width, bool add) {
    __shared__ C sums[ROW_GROUPS][WARP + 1];  // one more, so that a warp reads a column from 32 banks
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int first = blockIdx.x * WARP;
    C sum = 0;
    if (first + lane < width)
#pragma unroll 4
        for (Index row = warp; row < rows; row += ROW_GROUPS) sum += partial[row * width + first + lane];
    sums[warp][lane] = sum;
    __syncthreads();
    sum = sums[lane][warp];
    for (int lanes = WARP / 2; lanes; lanes /= 2) sum += __shfl_down_sync(0xffffffffu, sum, lanes);
    const int j = first + warp;
    if (lane == 0 && j < width) out[j] = S(add ? C(out[j]) + sum : sum);
}
