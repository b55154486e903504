// Inverted dropout with a counter-based mask: the same seed and draw give the same mask on every device.
//
// - A thread draws one block of Philox, four 64-bit words, for eight elements.
// - out may be a.
// - dropout_backward applies the stored mask.

#include "philox.cuh"

// Element i is kept, divided by 1-rate, when 32-bit word i of Philox with key (key0, key1) and first counter (1, 0, 0,
// draw) is at least threshold = rate · 2³². keep = 1 / (1-rate).
template <class S>
__global__ void __launch_bounds__(THREADS)
    dropout(const S* a, S* out, bool* mask, const Word* draw, Word key0, Word key1, unsigned int threshold, Compute<S> keep,
            Index size) {
    ThreadSlice<ELEMENTS_PER_DRAW> slice(Index(blockIdx.x) * blockDim.x * ELEMENTS_PER_DRAW, size, true);
    slice.full = slice.full && aligned<ELEMENTS_PER_DRAW>(a) &&
                 aligned<ELEMENTS_PER_DRAW>(out) && aligned<ELEMENTS_PER_DRAW>(mask);
    Vector<S, ELEMENTS_PER_DRAW> value = slice.load(a);
    const Words words(slice.first / ELEMENTS_PER_DRAW, draw[0], key0, key1);
    Vector<bool, ELEMENTS_PER_DRAW> kept;
#pragma unroll
    for (int i = 0; i < ELEMENTS_PER_DRAW; ++i) {
        kept.at[i] = words[i] >= threshold;
        value.at[i] = S(Compute<S>(value.at[i]) * (kept.at[i] ? keep : Compute<S>(0)));
    }
    slice.store(out, value);
    slice.store(mask, kept);
}

// da: ∂C/∂out on entry, ∂C/∂a on return.
template <class S>
__global__ void __launch_bounds__(THREADS) dropout_backward(S* da, const bool* mask, Compute<S> keep, Index size) {
    constexpr int N = VECTOR_WIDTH<S>;
    const int misaligned = misalignment(da);
    const ThreadSlice<N> slice = slice_of_tile<N>(blockIdx.x, size, misaligned, aligned<N>(mask - misaligned));
    Vector<S, N> d = slice.load(da);
    const Vector<bool, N> kept = slice.load(mask);
#pragma unroll
    for (int i = 0; i < N; ++i) d.at[i] = S(Compute<S>(d.at[i]) * (kept.at[i] ? keep : Compute<S>(0)));
    slice.store(da, d);
}
