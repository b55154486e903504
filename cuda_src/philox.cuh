// Philox4x64-10, a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//
// - Word i of a stream follows from key, draw and i alone: no state, the same numbers on every device and at every launch
//   shape, and a resumed training continues with the numbers it would have drawn.
// - The draw is read from device memory, so that a CUDA graph sees its new value.
#pragma once

#include "vectors.cuh"

typedef unsigned long long Word;

constexpr Word MULTIPLIER0 = 0xD2E7470EE14C6C93, MULTIPLIER1 = 0xCA5A826395121157;
constexpr Word KEY_STEP0 = 0x9E3779B97F4A7C15, KEY_STEP1 = 0xBB67AE8584CAA73B;
constexpr int ROUNDS = 10;

constexpr int ELEMENTS_PER_DRAW = 8;  // elements for which one block of the generator has a 32-bit word

// The 32-bit words 8·block … 8·block + 7 of the stream with key (key0, key1) and first counter (1, 0, 0, draw): the words
// that numpy.random.Philox draws.
struct Words {
    Word counter[4];

    __device__ Words(Index block, Word draw, Word key0, Word key1) : counter{Word(block) + 1, 0, 0, draw} {
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

    __device__ unsigned int operator[](int i) const { return (unsigned int)(counter[i / 2] >> (i % 2 ? 32 : 0)); }
};
