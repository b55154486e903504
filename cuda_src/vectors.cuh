// Storage types, and vectorized access to memory of up to 16 bytes.
//
// - Arrays hold float, double, __half or __nv_bfloat16; the 16-bit types are computed in float.
// - Arrays may have any alignment and any length. Where all arrays of a kernel allow it, a thread moves N neighbouring
//   elements at once; else the threads of a block move neighbouring elements one at a time, so that a warp still moves
//   whole cache lines.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef long long Index;  // n·m passes 2³¹

constexpr int WARP = 32;
constexpr int THREADS = 256;  // the largest block; launch_config.THREADS in Python
constexpr int ACCESS_BYTES = 16;

template <class S> struct Computed { typedef S type; };
template <> struct Computed<__half> { typedef float type; };
template <> struct Computed<__nv_bfloat16> { typedef float type; };

// The type in which numbers stored as S are computed.
template <class S> using Compute = typename Computed<S>::type;

// How many elements of type S one access moves.
template <class S> constexpr int VECTOR_WIDTH = ACCESS_BYTES / int(sizeof(S));

template <int BYTES> struct Access;
template <> struct Access<16> { typedef uint4 type; };
template <> struct Access<8> { typedef uint2 type; };
template <> struct Access<4> { typedef unsigned int type; };
template <> struct Access<2> { typedef unsigned short type; };
template <> struct Access<1> { typedef unsigned char type; };

// N elements in registers.
template <class S, int N> struct Vector {
    static constexpr int BYTES = N * int(sizeof(S)) < ACCESS_BYTES ? N * int(sizeof(S)) : ACCESS_BYTES;
    static constexpr int ACCESSES = N * int(sizeof(S)) / BYTES;
    typedef typename Access<BYTES>::type Word;

    S at[N];

    // `from` and `to` must be multiples of BYTES.
    __device__ void load(const S* from) {
        Word words[ACCESSES];
#pragma unroll
        for (int i = 0; i < ACCESSES; ++i) words[i] = reinterpret_cast<const Word*>(from)[i];
        memcpy(at, words, sizeof(at));
    }

    __device__ void store(S* to) const {
        Word words[ACCESSES];
        memcpy(words, at, sizeof(at));
        // __stwb, because the compiler often splits a plain assignment of a word into narrower stores.
#pragma unroll
        for (int i = 0; i < ACCESSES; ++i) __stwb(reinterpret_cast<Word*>(to) + i, words[i]);
    }
};

// How many elements lie between the last 16-byte boundary and `array`.
template <class S> __device__ int misalignment(const S* array) {
    return int(reinterpret_cast<size_t>(array) % ACCESS_BYTES / sizeof(S));
}

// Whether vectors of N elements can be moved from `array` on.
template <int N, class S> __device__ bool aligned(const S* array) {
    return reinterpret_cast<size_t>(array) % Vector<S, N>::BYTES == 0;
}

// The N elements of flat arrays that a thread processes: first, first + step, …, those of them in 0 … limit-1.
// A full slice is moved as a vector. Elements outside are never accessed, and are 0 in registers.
template <int N> struct ThreadSlice {
    Index first;
    int step, low, high;  // offsets from `first` in [low, high) lie within the arrays
    bool full;

    // vectorized: whether vectors may be moved from `begin` on. begin may be negative.
    __device__ ThreadSlice(Index begin, Index limit, bool vectorized)
        : first(begin + int(threadIdx.x) * (vectorized ? N : 1)),
          step(vectorized ? 1 : blockDim.x),
          low(first < 0 ? int(-first) : 0),
          high(int(max(min(limit - first, Index(N) * THREADS), Index(0)))),
          full(vectorized && low == 0 && high >= N) {}

    __device__ Index index(int i) const { return first + i * step; }
    __device__ bool holds(int i) const { return i * step >= low && i * step < high; }

    template <class S> __device__ Vector<S, N> load(const S* array) const {
        Vector<S, N> vector;
        array += first;
        if (full) {
            vector.load(array);
        } else {
#pragma unroll
            for (int i = 0; i < N; ++i) vector.at[i] = holds(i) ? array[i * step] : S(0);
        }
        return vector;
    }

    template <class S> __device__ void store(S* array, const Vector<S, N>& vector) const {
        array += first;
        if (full) {
            vector.store(array);
        } else {
#pragma unroll
            for (int i = 0; i < N; ++i)
                if (holds(i)) array[i * step] = vector.at[i];
        }
    }
};

// The slice of the calling thread where a flat array is cut into tiles of a block each. Tile 0 begins `misaligned` elements
// before the array, on a 16-byte boundary. ⌈(size + N - 1) / (threads · N)⌉ tiles reach the end.
template <int N> __device__ ThreadSlice<N> slice_of_tile(Index tile, Index size, int misaligned, bool vectorized) {
    return ThreadSlice<N>(tile * (Index(blockDim.x) * N) - misaligned, size, vectorized);
}
