// out_i = source_i in another type: the half copies of float32 parameters and inputs, and float32 of half logits.

#include "vectors.cuh"

template <class From, class To>
__global__ void __launch_bounds__(THREADS) cast(const From* source, To* out, Index size) {
    constexpr int N = PACK<To>;
    const Share<N> share(Index(blockIdx.x) * blockDim.x * N, size, aligned<N>(source) && aligned<N>(out));
    const Pack<From, N> from = share.load(source);
    Pack<To, N> to;
#pragma unroll
    for (int i = 0; i < N; ++i) to.at[i] = To(from.at[i]);
    share.store(out, to);
}
