// The rows of a batch: out_i = source[order[first + i]], cast to the type of out.
//
// - One thread moves a pack of one row where the width is a multiple of the pack, else single elements, neighbours in
//   neighbouring threads; a row number is read from the cache by all threads of its row.
// - The row numbers must be within range.
// - Where the batch begins is read from device memory: a CUDA graph must not freeze it.

#include "vectors.cuh"

// ⌊index / width⌋; a division of 64-bit numbers takes five times as long, and few arrays need it.
__device__ Index row_of(Index index, Index width, bool fits_32_bits) {
    return fits_32_bits ? Index((unsigned int)index / (unsigned int)width) : index / width;
}

template <class From, class To>
__global__ void __launch_bounds__(THREADS)
    gather(const From* source, const Index* order, const Index* first, To* out, Index width, Index size) {
    constexpr int N = PACK<To>;
    const Index* rows = order + (first ? first[0] : 0);
    const bool fits = size <= 0xffffffffLL;
    const bool packed = width % N == 0 && aligned<N>(source) && aligned<N>(out);
    const Share<N> share(Index(blockIdx.x) * blockDim.x * N, size, packed);
    Pack<From, N> from;
    if (share.whole) {
        const Index row = row_of(share.first, width, fits);
        from.load(source + rows[row] * width + (share.first - row * width));
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const Index row = row_of(share.index(i), width, fits);
            from.at[i] = share.holds(i) ? source[rows[row] * width + (share.index(i) - row * width)] : From(0);
        }
    }
    Pack<To, N> to;
#pragma unroll
    for (int i = 0; i < N; ++i) to.at[i] = To(from.at[i]);
    share.store(out, to);
}
