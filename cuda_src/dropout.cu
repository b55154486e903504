// Inverted dropout with a counter-based mask: the same seed and draw give the same mask on every device.
//
// - A thread draws one block of Philox, four 64-bit words, and so decides over eight elements.
// - out may be a.
// - dropout_backward applies the stored mask.

#include "philox.cuh"

// Element i stays, divided by 1-rate, when 32-bit word i of Philox with key (key0, key1) and first counter (1, 0, 0, draw)
// is at least threshold = rate · 2³². keep = 1 / (1-rate).
template <class S>
__global__ void __launch_bounds__(THREADS)
    dropout(const S* a, S* out, bool* mask, const Word* draw, Word key0, Word key1, unsigned int threshold, Compute<S> keep,
            Index size) {
    Share<DRAWN> share(Index(blockIdx.x) * blockDim.x * DRAWN, size, true);
    share.whole = share.whole && aligned<DRAWN>(a) && aligned<DRAWN>(out) && aligned<DRAWN>(mask);
    Pack<S, DRAWN> value = share.load(a);
    const Words words(share.first / DRAWN, draw[0], key0, key1);
    Pack<bool, DRAWN> stays;
#pragma unroll
    for (int i = 0; i < DRAWN; ++i) {
        stays.at[i] = words[i] >= threshold;
        value.at[i] = S(Compute<S>(value.at[i]) * (stays.at[i] ? keep : Compute<S>(0)));
    }
    share.store(out, value);
    share.store(mask, stays);
}

// ∂C/∂a in place of ∂C/∂(dropped a).
template <class S>
__global__ void __launch_bounds__(THREADS) dropout_backward(S* da, const bool* mask, Compute<S> keep, Index size) {
    constexpr int N = PACK<S>;
    const int ahead = lead(da);
    const Share<N> share = share_of_tile<N>(blockIdx.x, size, ahead, aligned<N>(mask - ahead));
    Pack<S, N> d = share.load(da);
    const Pack<bool, N> stays = share.load(mask);
#pragma unroll
    for (int i = 0; i < N; ++i) d.at[i] = S(Compute<S>(d.at[i]) * (stays.at[i] ? keep : Compute<S>(0)));
    share.store(da, d);
}
