// The lanes that share one row, and how they reduce what each of them holds.
//
// - Up to 32 lanes: a warp or part of one, by shuffles. More: one block; or the blocks of a cluster, which write their
//   warps' parts into each other's shared memory. One barrier a reduction, and every lane gets the same bits.
// - A value that is reduced is a plain structure with merge(); merges are commutative, so the butterfly is symmetric.
// - Every lane of a warp must call reduce(), also one whose row is not there.
#pragma once

#include "vectors.cuh"

constexpr unsigned ALL_LANES = 0xffffffffu;

template <class V> __device__ V shuffled_xor(const V& value, int lanes) {
    static_assert(sizeof(V) % 4 == 0, "a value to shuffle consists of 4-byte words");
    unsigned words[sizeof(V) / 4];
    memcpy(words, &value, sizeof(V));
#pragma unroll
    for (int i = 0; i < int(sizeof(V) / 4); ++i) words[i] = __shfl_xor_sync(ALL_LANES, words[i], lanes);
    V other;
    memcpy(&other, words, sizeof(V));
    return other;
}

template <int LANES, class V> __device__ V reduce_lanes(V value) {
#pragma unroll
    for (int lanes = LANES / 2; lanes > 0; lanes /= 2) value.merge(shuffled_xor(value, lanes));
    return value;
}

// The lowest column that any lane names.
struct Lowest {
    int column;
    __device__ void merge(const Lowest& other) { column = min(column, other.column); }
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
__device__ inline int cluster_rank() {
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return int(rank);
}
__device__ inline void cluster_arrive() { asm volatile("barrier.cluster.arrive.aligned;" ::: "memory"); }
__device__ inline void cluster_wait() { asm volatile("barrier.cluster.wait.aligned;" ::: "memory"); }
// `to` lies in this block's shared memory; the word goes to the same place in block `rank` of the cluster.
__device__ inline void store_in_cluster(unsigned* to, int rank, unsigned word) {
    unsigned address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(unsigned(__cvta_generic_to_shared(to))), "r"(rank));
    asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(address), "r"(word) : "memory");
}
#else
__device__ inline int cluster_rank() { return 0; }
__device__ inline void cluster_arrive() {}
__device__ inline void cluster_wait() {}
__device__ inline void store_in_cluster(unsigned* to, int, unsigned word) { *to = word; }
#endif

// LANES of a block and BLOCKS of a cluster share a row. Where LANES ≤ 32, a block has several rows.
template <int LANES, int BLOCKS = 1> struct RowGroup {
    static constexpr int TOTAL = LANES * BLOCKS;
    static constexpr bool IN_WARP = LANES <= 32;

    Index row;
    int lane;  // 0 … TOTAL-1

    __device__ RowGroup() {
        if (IN_WARP) {
            row = Index(blockIdx.x) * (blockDim.x / LANES) + threadIdx.x / LANES;
            lane = threadIdx.x % LANES;
        } else {
            row = blockIdx.x / BLOCKS;
            lane = (BLOCKS > 1 ? cluster_rank() * LANES : 0) + threadIdx.x;
        }
        if (BLOCKS > 1) cluster_arrive();
    }

    // Before the first reduction: no block may write into another that has not begun.
    __device__ void meet() const {
        if (BLOCKS > 1) cluster_wait();
    }

    // What one lane of the group has read, before another overwrites it.
    __device__ void fence() const {
        if (IN_WARP) __syncwarp();
    }

    // Whether any lane says so, of all that must take the same way.
    __device__ bool any(bool predicate) const { return IN_WARP ? __any_sync(ALL_LANES, predicate) : predicate; }

    // PLACE tells the reductions of one kernel apart: each has its own shared memory, so that one barrier is enough.
    template <int PLACE, class V> __device__ V reduce(V value) const {
        if constexpr (IN_WARP) {
            return reduce_lanes<LANES>(value);
        } else {
            constexpr int WARPS = LANES / 32, PARTS = WARPS * BLOCKS, WORDS = int(sizeof(V) / 4);
            __shared__ unsigned parts[PARTS][WORDS];
            value = reduce_lanes<32>(value);
            const int in_warp = threadIdx.x % 32, part = lane / 32;
            if (in_warp < BLOCKS) {
                unsigned words[WORDS];
                memcpy(words, &value, sizeof(V));
#pragma unroll
                for (int i = 0; i < WORDS; ++i) {
                    if (BLOCKS > 1) store_in_cluster(&parts[part][i], in_warp, words[i]);
                    else parts[part][i] = words[i];
                }
            }
            if (BLOCKS > 1) {
                cluster_arrive();
                cluster_wait();
            } else {
                __syncthreads();
            }
            constexpr int SPAN = PARTS < 32 ? PARTS : 32;  // a power of two, as LANES and BLOCKS are
            memcpy(&value, parts[in_warp % SPAN], sizeof(V));
#pragma unroll
            for (int next = SPAN; next < PARTS; next += SPAN) {
                V other;
                memcpy(&other, parts[next + in_warp % SPAN], sizeof(V));
                value.merge(other);
            }
            return reduce_lanes<SPAN>(value);
        }
    }
};
