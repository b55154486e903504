// How rows come from memory and go back to it: 16 bytes an access, each byte once.
//
// A row is a head and a tail of less than 16 bytes, one element a lane, and between them packs on 16-byte boundaries.
#pragma once

#include "vectors.cuh"

// What is touched once need not push anything out of the caches.
template <class S, int N> __device__ Pack<S, N> load_once(const S* from) {
    typedef typename Pack<S, N>::Word Word;
    Word words[Pack<S, N>::ACCESSES];
#pragma unroll
    for (int i = 0; i < Pack<S, N>::ACCESSES; ++i) words[i] = __ldcs(reinterpret_cast<const Word*>(from) + i);
    Pack<S, N> pack;
    memcpy(pack.at, words, sizeof(pack.at));
    return pack;
}

template <class S, int N> __device__ void store_once(S* to, const Pack<S, N>& pack) {
    typedef typename Pack<S, N>::Word Word;
    Word words[Pack<S, N>::ACCESSES];
    memcpy(words, pack.at, sizeof(pack.at));
#pragma unroll
    for (int i = 0; i < Pack<S, N>::ACCESSES; ++i) __stcs(reinterpret_cast<Word*>(to) + i, words[i]);
}

// Two neighbours are rounded by one instruction where there is one.
__device__ inline void round_pair(float x, float y, __half* to) {
    const __half2 pair = __floats2half2_rn(x, y);
    to[0] = __low2half(pair);
    to[1] = __high2half(pair);
}
__device__ inline void round_pair(float x, float y, __nv_bfloat16* to) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
    to[0] = __low2bfloat16(pair);
    to[1] = __high2bfloat16(pair);
}
__device__ inline void round_pair(float x, float y, float* to) { to[0] = x, to[1] = y; }
__device__ inline void round_pair(double x, double y, double* to) { to[0] = x, to[1] = y; }

template <class S, int N> __device__ Pack<S, N> rounded(const Compute<S> (&values)[N]) {
    Pack<S, N> pack;
    if constexpr (N == 1) {
        pack.at[0] = S(values[0]);
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 2) round_pair(values[i], values[i + 1], pack.at + i);
    }
    return pack;
}

// Where a row's head ends, how many packs follow, and how long its tail is.
template <class S> struct Layout {
    static constexpr int WIDTH = PACK<S>;
    int head, packs, tail;

    __device__ Layout(const S* row, Index length) {
        const int to_boundary = (WIDTH - lead(row)) % WIDTH;
        head = length < to_boundary ? int(length) : to_boundary;
        packs = int((length - head) / WIDTH);
        tail = int(length - head - Index(packs) * WIDTH);
    }
};

// Targets in global memory, beside the logits: of a row, from `column` on.
template <class T> struct GlobalTargets {
    const T* row;

    template <class C, int N> __device__ void read(int column, C (&targets)[N]) const {
        typedef Pack<T, N> Targets;
        Targets pack;
        if (N > 1 && reinterpret_cast<size_t>(row + column) % Targets::BYTES == 0) {
            pack.load(row + column);
        } else {
#pragma unroll
            for (int i = 0; i < N; ++i) pack.at[i] = row[column + i];
        }
#pragma unroll
        for (int i = 0; i < N; ++i) targets[i] = C(pack.at[i]);
    }
};

// Targets that were staged with the logits; a whole row at once.
template <class C> struct StagedTargets {
    const C* row;

    template <int N> __device__ void read(int, C (&targets)[N]) const {
#pragma unroll
        for (int i = 0; i < N; ++i) targets[i] = row[i];
    }
};

struct NoTargets {};

// A warp's 32 rows of M as they lie in memory, and as lanes read them: an odd pitch lets each lane have a bank of its own.
template <class S, int M, class C> struct Tile {
    static constexpr int WIDTH = PACK<S>, LOADS = (M + WIDTH - 1) / WIDTH, PITCH = M | 1;

    C at[32 * PITCH];

    __device__ static int place(int element) { return element + element / M * (PITCH - M); }

    __device__ void load(const S* from, int elements, int lane) {
        const Layout<S> layout(from, elements);
        Pack<S, WIDTH> raw[LOADS];
#pragma unroll
        for (int v = 0; v < LOADS; ++v)
            if (v * 32 + lane < layout.packs) raw[v] = load_once<S, WIDTH>(from + layout.head + (v * 32 + lane) * WIDTH);
        const int tail = elements - layout.tail + lane;
        if (lane < layout.head) at[place(lane)] = C(from[lane]);
        if (lane < layout.tail) at[place(tail)] = C(from[tail]);
#pragma unroll
        for (int v = 0; v < LOADS; ++v)
            if (v * 32 + lane < layout.packs)
#pragma unroll
                for (int i = 0; i < WIDTH; ++i) at[place(layout.head + (v * 32 + lane) * WIDTH + i)] = C(raw[v].at[i]);
    }

    __device__ void store(S* to, int elements, int lane) const {
        const Layout<S> layout(to, elements);
        const int tail = elements - layout.tail + lane;
        if (lane < layout.head) to[lane] = S(at[place(lane)]);
        if (lane < layout.tail) to[tail] = S(at[place(tail)]);
#pragma unroll
        for (int v = 0; v < LOADS; ++v)
            if (v * 32 + lane < layout.packs) {
                const int first = layout.head + (v * 32 + lane) * WIDTH;
                Compute<S> values[WIDTH];
#pragma unroll
                for (int i = 0; i < WIDTH; ++i) values[i] = at[place(first + i)];
                store_once(to + first, rounded<S, WIDTH>(values));
            }
    }
};
