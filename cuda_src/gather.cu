// The rows of a batch: out_i = source[order[first + i]], cast to the type of out.
//
// - One thread moves a vector of one row where the width is a multiple of the vector, else single elements, neighbours in
//   neighbouring threads. All threads of a row read its row number from the cache.
// - Row numbers must be within range.
// - The first row of the batch is read from device memory, so that a CUDA graph sees its new value.

#include "vectors.cuh"

// ⌊index / width⌋. A 64-bit division takes five times as long as a 32-bit one, and few arrays need it.
__device__ Index row_of(Index index, Index width, bool fits_32_bits) {
    return fits_32_bits ? Index((unsigned int)index / (unsigned int)width) : index / width;
}

template <class From, class To>
__global__ void __launch_bounds__(THREADS)
    gather(const From* source, const Index* order, const Index* first, To* out, Index width, Index size) {
    constexpr int N = VECTOR_WIDTH<To>;
    const Index* rows = order + (first ? first[0] : 0);
    const bool fits = size <= 0xffffffffLL;
    const bool vectorized = width % N == 0 && aligned<N>(source) && aligned<N>(out);
    const ThreadSlice<N> slice(Index(blockIdx.x) * blockDim.x * N, size, vectorized);
    Vector<From, N> from;
    if (slice.full) {
        const Index row = row_of(slice.first, width, fits);
        from.load(source + rows[row] * width + (slice.first - row * width));
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const Index row = row_of(slice.index(i), width, fits);
            from.at[i] = slice.holds(i) ? source[rows[row] * width + (slice.index(i) - row * width)] : From(0);
        }
    }
    Vector<To, N> to;
#pragma unroll
    for (int i = 0; i < N; ++i) to.at[i] = To(from.at[i]);
    slice.store(out, to);
}
