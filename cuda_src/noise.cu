// x + deviation · ε with ε ~ N(0, 1), counter-based: the same seed and draw give the same noise on every device.
//
// - A thread draws one block of Philox, and turns its eight words into eight normal numbers, pair by pair.
// - out may be x. Its gradient is that of x: there is no backward kernel.

#include "philox.cuh"

// Box and Muller (1958): of 32-bit words v, w of the stream that dropout draws from, elements i and i+1, i even, get
// √(-2 ln((v+½)/2³²)) · (cos, sin)(2π w/2³²). The farthest that a number can be is 6.8 deviations.
template <class S>
__global__ void __launch_bounds__(THREADS)
    noise(const S* x, S* out, const Word* draw, Word key0, Word key1, Compute<S> deviation, Index size) {
    typedef Compute<S> C;
    Share<DRAWN> share(Index(blockIdx.x) * blockDim.x * DRAWN, size, true);
    share.whole = share.whole && aligned<DRAWN>(x) && aligned<DRAWN>(out);
    Pack<S, DRAWN> value = share.load(x);
    const Words words(share.first / DRAWN, draw[0], key0, key1);
#pragma unroll
    for (int i = 0; i < DRAWN; i += 2) {
        const C radius = deviation * sqrt(C(-2) * log((C(words[i]) + C(0.5)) * C(1.0 / 4294967296)));
        C sine, cosine;
        sincospi(C(words[i + 1]) * C(1.0 / 2147483648), &sine, &cosine);
        value.at[i] = S(C(value.at[i]) + radius * cosine);
        value.at[i + 1] = S(C(value.at[i + 1]) + radius * sine);
    }
    share.store(out, value);
}
