// out_i = source_i in another type, between float32 and the half types.

#include "vectors.cuh"

template <class From, class To>
__global__ void __launch_bounds__(THREADS) cast(const From* source, To* out, Index size) {
    constexpr int N = VECTOR_WIDTH<To>;
    const ThreadSlice<N> slice(Index(blockIdx.x) * blockDim.x * N, size, aligned<N>(source) && aligned<N>(out));
    const Vector<From, N> from = slice.load(source);
    Vector<To, N> to;
#pragma unroll
    for (int i = 0; i < N; ++i) to.at[i] = To(from.at[i]);
    slice.store(out, to);
}
