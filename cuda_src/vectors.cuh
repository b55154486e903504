// Storage types, and memory moved in accesses of up to 16 bytes.
//
// - float, double, __half and __nv_bfloat16 are storage; the 16-bit types are computed in float.
// - Arrays may have any alignment and any length. Where all arrays of a kernel allow it, a thread moves N neighbouring
//   elements at once; where not, the threads of a block take neighbouring elements one at a time, so that a warp still
//   moves whole lines of the cache.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef long long Index;  // n·m passes 2³¹

constexpr int WARP = 32;
constexpr int THREADS = 256;  // of a block, at most; the launching side knows it as launch_config.THREADS
constexpr int ACCESS_BYTES = 16;

template <class S> struct Computed { typedef S type; };
template <> struct Computed<__half> { typedef float type; };
template <> struct Computed<__nv_bfloat16> { typedef float type; };

// The type in which numbers stored as S are computed.
template <class S> using Compute = typename Computed<S>::type;

// How many elements of type S one access moves.
template <class S> constexpr int PACK = ACCESS_BYTES / int(sizeof(S));

template <int BYTES> struct Access;
template <> struct Access<16> { typedef uint4 type; };
template <> struct Access<8> { typedef uint2 type; };
template <> struct Access<4> { typedef unsigned int type; };
template <> struct Access<2> { typedef unsigned short type; };
template <> struct Access<1> { typedef unsigned char type; };

// N elements in registers.
template <class S, int N> struct Pack {
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
        // A plain assignment of a word is taken apart by the compiler more often than not.
#pragma unroll
        for (int i = 0; i < ACCESSES; ++i) __stwb(reinterpret_cast<Word*>(to) + i, words[i]);
    }
};

// How many elements lie between the last 16-byte boundary and `array`.
template <class S> __device__ int lead(const S* array) {
    return int(reinterpret_cast<size_t>(array) % ACCESS_BYTES / sizeof(S));
}

// Whether packs of N elements can be moved from `array` on.
template <int N, class S> __device__ bool aligned(const S* array) {
    return reinterpret_cast<size_t>(array) % Pack<S, N>::BYTES == 0;
}

// The N elements of flat arrays that fall to a thread: first, first + step, … as far as they lie in 0 … limit-1.
// A whole share is moved as a pack. What lies outside is never touched, and 0 in registers.
template <int N> struct Share {
    Index first;
    int step, low, high;  // offsets from `first` in [low, high) lie within the arrays
    bool whole;

    // `packed`: packs may be moved from `begin` on. `begin` may lie before 0.
    __device__ Share(Index begin, Index limit, bool packed)
        : first(begin + int(threadIdx.x) * (packed ? N : 1)),
          step(packed ? 1 : blockDim.x),
          low(first < 0 ? int(-first) : 0),
          high(int(max(min(limit - first, Index(N) * THREADS), Index(0)))),
          whole(packed && low == 0 && high >= N) {}

    __device__ Index index(int i) const { return first + i * step; }
    __device__ bool holds(int i) const { return i * step >= low && i * step < high; }

    template <class S> __device__ Pack<S, N> load(const S* array) const {
        Pack<S, N> pack;
        array += first;
        if (whole) {
            pack.load(array);
        } else {
#pragma unroll
            for (int i = 0; i < N; ++i) pack.at[i] = holds(i) ? array[i * step] : S(0);
        }
        return pack;
    }

    template <class S> __device__ void store(S* array, const Pack<S, N>& pack) const {
        array += first;
        if (whole) {
            pack.store(array);
        } else {
#pragma unroll
            for (int i = 0; i < N; ++i)
                if (holds(i)) array[i * step] = pack.at[i];
        }
    }
};

// The share of the calling thread where blocks cut a flat array into tiles, the tile before 0 … size-1 beginning `lead`
// elements early, on a 16-byte boundary. ⌈(size + N - 1) / (threads · N)⌉ tiles reach its end.
template <int N> __device__ Share<N> share_of_tile(Index tile, Index size, int lead, bool packed) {
    return Share<N>(tile * (Index(blockDim.x) * N) - lead, size, packed);
}
