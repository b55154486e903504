// x + deviation · ε with ε ~ N(0, 1), counter-based: the same seed and draw give the same noise on every device.
//
// - A thread draws one block of Philox, and converts its eight words to eight normal numbers, pair by pair.
// - out may be x. Its gradient is that of x: there is no backward kernel.

#include "philox.cuh"

// Box and Muller (1958): of 32-bit words v, w of the stream that dropout draws from, elements i and i+1, i even, get
// √(-2 ln((v+½)/2³²)) · (cos, sin)(2π w/2³²). No number exceeds 6.8 deviations.
template <class S>
__global__ void __launch_bounds__(THREADS)
    noise(const S* x, S* out, const Word* draw, Word key0, Word key1, Compute<S> deviation, Index size) {
    typedef Compute<S> C;
    ThreadSlice<ELEMENTS_PER_DRAW> slice(Index(blockIdx.x) * blockDim.x * ELEMENTS_PER_DRAW, size, true);
    slice.full = slice.full && aligned<ELEMENTS_PER_DRAW>(x) && aligned<ELEMENTS_PER_DRAW>(out);
    Vector<S, ELEMENTS_PER_DRAW> value = slice.load(x);
    const Words words(slice.first / ELEMENTS_PER_DRAW, draw[0], key0, key1);
#pragma unroll
    for (int i = 0; i < ELEMENTS_PER_DRAW; i += 2) {
        const C radius = deviation * sqrt(C(-2) * log((C(words[i]) + C(0.5)) * C(1.0 / 4294967296)));
        C sine, cosine;
        sincospi(C(words[i + 1]) * C(1.0 / 2147483648), &sine, &cosine);
        value.at[i] = S(C(value.at[i]) + radius * cosine);
        value.at[i + 1] = S(C(value.at[i + 1]) + radius * sine);
    }
    slice.store(out, value);
}
