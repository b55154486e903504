// Loads and stores of rows: 16 bytes an access, each byte once.
//
// A row is a head and a tail of less than 16 bytes, moved one element a thread, and between them aligned vectors.
#pragma once

#include "vectors.cuh"

// Streaming access (evict first), for data that is touched once.
template <class S, int N> __device__ Vector<S, N> load_streaming(const S* from) {
    typedef typename Vector<S, N>::Word Word;
    Word words[Vector<S, N>::ACCESSES];
#pragma unroll
    for (int i = 0; i < Vector<S, N>::ACCESSES; ++i) words[i] = __ldcs(reinterpret_cast<const Word*>(from) + i);
    Vector<S, N> vector;
    memcpy(vector.at, words, sizeof(vector.at));
    return vector;
}

template <class S, int N> __device__ void store_streaming(S* to, const Vector<S, N>& vector) {
    typedef typename Vector<S, N>::Word Word;
    Word words[Vector<S, N>::ACCESSES];
    memcpy(words, vector.at, sizeof(vector.at));
#pragma unroll
    for (int i = 0; i < Vector<S, N>::ACCESSES; ++i) __stcs(reinterpret_cast<Word*>(to) + i, words[i]);
}

// Rounds two neighbours, by one instruction where there is one.
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

template <class S, int N> __device__ Vector<S, N> round_to_storage(const Compute<S> (&values)[N]) {
    Vector<S, N> vector;
    if constexpr (N == 1) {
        vector.at[0] = S(values[0]);
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 2) round_pair(values[i], values[i + 1], vector.at + i);
    }
    return vector;
}

// Elements in the head of a row, vectors after it, and elements in the tail.
template <class S> struct RowLayout {
    static constexpr int WIDTH = VECTOR_WIDTH<S>;
    int head, vectors, tail;

    __device__ RowLayout(const S* row, Index length) {
        const int to_boundary = (WIDTH - misalignment(row)) % WIDTH;
        head = length < to_boundary ? int(length) : to_boundary;
        vectors = int((length - head) / WIDTH);
        tail = int(length - head - Index(vectors) * WIDTH);
    }
};

// Reads the targets of a row from global memory, from `column` on.
template <class T> struct GlobalTargets {
    const T* row;

    template <class C, int N> __device__ void read(int column, C (&targets)[N]) const {
        typedef Vector<T, N> Targets;
        Targets vector;
        if (N > 1 && reinterpret_cast<size_t>(row + column) % Targets::BYTES == 0) {
            vector.load(row + column);
        } else {
#pragma unroll
            for (int i = 0; i < N; ++i) vector.at[i] = row[column + i];
        }
#pragma unroll
        for (int i = 0; i < N; ++i) targets[i] = C(vector.at[i]);
    }
};

// Reads the targets of a whole row from shared memory.
template <class C> struct StagedTargets {
    const C* row;

    template <int N> __device__ void read(int, C (&targets)[N]) const {
#pragma unroll
        for (int i = 0; i < N; ++i) targets[i] = row[i];
    }
};

struct NoTargets {};

// The 32 rows of M elements of a warp in shared memory. The pitch is odd, so that threads reading a column hit 32 banks.
template <class S, int M, class C> struct Tile {
    static constexpr int WIDTH = VECTOR_WIDTH<S>, LOADS = (M + WIDTH - 1) / WIDTH, PITCH = M | 1;

    C at[32 * PITCH];

    __device__ static int padded_index(int element) { return element + element / M * (PITCH - M); }

    __device__ void load(const S* from, int elements, int lane) {
        const RowLayout<S> layout(from, elements);
        Vector<S, WIDTH> raw[LOADS];
#pragma unroll
        for (int v = 0; v < LOADS; ++v)
            if (v * 32 + lane < layout.vectors)
                raw[v] = load_streaming<S, WIDTH>(from + layout.head + (v * 32 + lane) * WIDTH);
        const int tail = elements - layout.tail + lane;
        if (lane < layout.head) at[padded_index(lane)] = C(from[lane]);
        if (lane < layout.tail) at[padded_index(tail)] = C(from[tail]);
#pragma unroll
        for (int v = 0; v < LOADS; ++v)
            if (v * 32 + lane < layout.vectors)
#pragma unroll
                for (int i = 0; i < WIDTH; ++i)
                    at[padded_index(layout.head + (v * 32 + lane) * WIDTH + i)] = C(raw[v].at[i]);
    }

    __device__ void store(S* to, int elements, int lane) const {
        const RowLayout<S> layout(to, elements);
        const int tail = elements - layout.tail + lane;
        if (lane < layout.head) to[lane] = S(at[padded_index(lane)]);
        if (lane < layout.tail) to[tail] = S(at[padded_index(tail)]);
#pragma unroll
        for (int v = 0; v < LOADS; ++v)
            if (v * 32 + lane < layout.vectors) {
                const int first = layout.head + (v * 32 + lane) * WIDTH;
                Compute<S> values[WIDTH];
#pragma unroll
                for (int i = 0; i < WIDTH; ++i) values[i] = at[padded_index(first + i)];
                store_streaming(to + first, round_to_storage<S, WIDTH>(values));
            }
    }
};
