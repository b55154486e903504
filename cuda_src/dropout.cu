// Inverted dropout with a counter-based mask: the same seed and draw give the same mask on every device.
//
// - A thread draws one block of Philox4x64-10, four 64-bit words, and so decides over eight elements.
// - The draw is read from device memory: a CUDA graph must not freeze it.
// - dropout_backward applies the stored mask.

#include "packs.cuh"

typedef unsigned long long Word;

// Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
constexpr Word MULTIPLIER0 = 0xD2E7470EE14C6C93, MULTIPLIER1 = 0xCA5A826395121157;
constexpr Word KEY_STEP0 = 0x9E3779B97F4A7C15, KEY_STEP1 = 0xBB67AE8584CAA73B;
constexpr int ROUNDS = 10;

__device__ void philox(Word (&counter)[4], Word key0, Word key1) {
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        const Word low0 = MULTIPLIER0 * counter[0], high0 = __umul64hi(MULTIPLIER0, counter[0]);
        const Word low1 = MULTIPLIER1 * counter[2], high1 = __umul64hi(MULTIPLIER1, counter[2]);
        counter[0] = high1 ^ counter[1] ^ key0;
        counter[1] = low1;
        counter[2] = high0 ^ counter[3] ^ key1;
        counter[3] = low0;
        key0 += KEY_STEP0;
        key1 += KEY_STEP1;
    }
}

constexpr int DRAWN = 8;  // elements for which one block of Philox has a 32-bit word

// Element i stays, divided by 1-rate, when 32-bit word i of Philox with key (key0, key1) and first counter (1, 0, 0, draw)
// is at least threshold = rate · 2³². keep = 1 / (1-rate).
template <class S>
__global__ void __launch_bounds__(THREADS)
    dropout(S* a, bool* mask, const Word* draw, Word key0, Word key1, unsigned int threshold, Compute<S> keep, Index size) {
    Share<DRAWN> share(Index(blockIdx.x) * blockDim.x * DRAWN, size, true);
    share.whole = share.whole && aligned<DRAWN>(a) && aligned<DRAWN>(mask);
    Pack<S, DRAWN> value = share.load(a);
    Word words[4] = {Word(share.first) / DRAWN + 1, 0, 0, draw[0]};
    philox(words, key0, key1);
    Pack<bool, DRAWN> stays;
#pragma unroll
    for (int i = 0; i < DRAWN; ++i) {
        stays.at[i] = (unsigned int)(words[i / 2] >> (i % 2 ? 32 : 0)) >= threshold;
        value.at[i] = S(Compute<S>(value.at[i]) * (stays.at[i] ? keep : Compute<S>(0)));
    }
    share.store(a, value);
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
