// Work along the columns of an (n, width) matrix of any width.
//
// - The matrix is one flat array, cut into rows of `span` elements. span is a multiple of the width and of the vector, so
//   vectors are aligned in every row even where the matrix's own rows are not; the span of a narrow matrix holds as many of
//   its rows as a block has threads for.
// - blockIdx.x is a tile of columns, blockIdx.y a chunk of rows. A thread keeps its N columns through the whole chunk, and
//   with them their bias or their sums in registers.
// - Column sums take two stages and no atomics: partial sums of each chunk, then column_sum of linear.cu.
#pragma once

#include "vectors.cuh"

constexpr int DEPTH = 2; // rows that a thread loads before it uses the first

template <int N> struct Columns {
    Index size, first_row, last_row;
    Index full_rows;  // this thread's elements of the rows before this one are full vectors
    int width, span;
    bool vectorized;

    __device__ Columns(Index size, int width, int span, int rows, bool vectorized)
        : size(size),
          first_row(Index(blockIdx.y) * rows),
          last_row(min(first_row + rows, (size + span - 1) / span)),
          full_rows(0),
          width(width),
          span(span),
          vectorized(vectorized) {
        const Index end = column(0) + N;
        if (vectorized && end <= min(size, Index(span))) full_rows = min(last_row, (size - end) / span + 1);
    }

    // The slice of this thread in a row.
    template <bool FULL> __device__ ThreadSlice<N> slice(Index row) const {
        const Index begin = row * span;
        ThreadSlice<N> slice(begin + Index(blockIdx.x) * blockDim.x * N, min(begin + span, size), vectorized);
        slice.full = FULL;
        return slice;
    }

    // The column of this thread's i-th element, 0 … span-1, or beyond where it has none.
    __device__ int column(int i) const { return int(slice<false>(0).index(i)); }
};

// Writes a chunk's sums, sum[i] of column(i), as rows of `partial`: one of `width` columns where one tile holds the whole
// span, else span / width of them.
template <class C, int N> __device__ void store_sums(const Columns<N>& columns, const C (&sum)[N], C* partial) {
    const int width = columns.width, span = columns.span;
    if (gridDim.x > 1) {
        for (int i = 0; i < N; ++i)
            if (columns.column(i) < span) partial[Index(blockIdx.y) * span + columns.column(i)] = sum[i];
        return;
    }
    __shared__ C sums[THREADS * N];
    for (int i = 0; i < N; ++i)
        if (columns.column(i) < span) sums[columns.column(i)] = sum[i];
    __syncthreads();
    for (int rows = span / width; rows > 1;) {
        const int kept = (rows + 1) / 2;
        for (int j = threadIdx.x; j < (rows - kept) * width; j += blockDim.x) sums[j] += sums[kept * width + j];
        rows = kept;
        __syncthreads();
    }
    for (int j = threadIdx.x; j < width; j += blockDim.x) partial[Index(blockIdx.y) * width + j] = sums[j];
}
