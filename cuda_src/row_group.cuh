// The group of threads that share one row, and its reductions.
//
// - Up to 32 threads: a warp or a part of one, reduced by shuffles. More: one block; or the blocks of a cluster, which
//   write the partial results of their warps into each other's shared memory. One barrier a reduction; all threads get
//   the same bits.
// - A value to reduce is a plain struct with merge(). merge() is commutative, so the butterfly is symmetric.
// - Every thread of a warp must call reduce(), even if its row is out of range.
#pragma once

#include "vectors.cuh"

constexpr unsigned ALL_LANES = 0xffffffffu;

template <class V> __device__ V shuffle_xor(const V& value, int lanes) {
    static_assert(sizeof(V) % 4 == 0, "a value to shuffle consists of 4-byte words");
    unsigned words[sizeof(V) / 4];
    memcpy(words, &value, sizeof(V));
#pragma unroll
    for (int i = 0; i < int(sizeof(V) / 4); ++i) words[i] = __shfl_xor_sync(ALL_LANES, words[i], lanes);
    V other;
    memcpy(&other, words, sizeof(V));
    return other;
}

// Over each LANES neighbouring lanes of a warp; LANES is a power of two.
template <int LANES, class V> __device__ V reduce_warp(V value) {
#pragma unroll
    for (int lanes = LANES / 2; lanes > 0; lanes /= 2) value.merge(shuffle_xor(value, lanes));
    return value;
}

// Reduces to the smallest column.
struct MinColumn {
    int column;
    __device__ void merge(const MinColumn& other) { column = min(column, other.column); }
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

// ROW_THREADS threads in each of CLUSTER_BLOCKS blocks share a row. Where ROW_THREADS ≤ 32, a block has several rows.
template <int ROW_THREADS, int CLUSTER_BLOCKS = 1> struct RowGroup {
    static constexpr bool IN_WARP = ROW_THREADS <= 32;

    Index row;
    int rank;  // of the thread in the group

    __device__ RowGroup() {
        if (IN_WARP) {
            row = Index(blockIdx.x) * (blockDim.x / ROW_THREADS) + threadIdx.x / ROW_THREADS;
            rank = threadIdx.x % ROW_THREADS;
        } else {
            row = blockIdx.x / CLUSTER_BLOCKS;
            rank = (CLUSTER_BLOCKS > 1 ? cluster_rank() * ROW_THREADS : 0) + threadIdx.x;
        }
        if (CLUSTER_BLOCKS > 1) cluster_arrive();
    }

    // Call before the first reduction: no block may write into another that has not started.
    __device__ void wait_for_cluster() const {
        if (CLUSTER_BLOCKS > 1) cluster_wait();
    }

    // Call between a thread's reads and another's writes of the same memory.
    __device__ void sync_warp() const {
        if (IN_WARP) __syncwarp();
    }

    // Whether the predicate holds in any thread that must take the same branch: the warp of a group within a warp,
    // which may have several rows; in larger groups it is uniform.
    __device__ bool any_in_warp(bool predicate) const { return IN_WARP ? __any_sync(ALL_LANES, predicate) : predicate; }

    // SLOT: a number of its own for each reduction of a kernel. Each slot has its own shared memory, so one barrier
    // suffices.
    template <int SLOT, class V> __device__ V reduce(V value) const {
        if constexpr (IN_WARP) {
            return reduce_warp<ROW_THREADS>(value);
        } else {
            constexpr int WARPS = ROW_THREADS / 32, PARTIALS = WARPS * CLUSTER_BLOCKS, WORDS = int(sizeof(V) / 4);
            __shared__ unsigned partials[PARTIALS][WORDS];
            value = reduce_warp<32>(value);
            const int lane = threadIdx.x % 32, warp_index = rank / 32;
            if (lane < CLUSTER_BLOCKS) {
                unsigned words[WORDS];
                memcpy(words, &value, sizeof(V));
#pragma unroll
                for (int i = 0; i < WORDS; ++i) {
                    if (CLUSTER_BLOCKS > 1) store_in_cluster(&partials[warp_index][i], lane, words[i]);
                    else partials[warp_index][i] = words[i];
                }
            }
            if (CLUSTER_BLOCKS > 1) {
                cluster_arrive();
                cluster_wait();
            } else {
                __syncthreads();
            }
            constexpr int SPAN = PARTIALS < 32 ? PARTIALS : 32;  // a power of two, as ROW_THREADS and CLUSTER_BLOCKS are
            memcpy(&value, partials[lane % SPAN], sizeof(V));
#pragma unroll
            for (int next = SPAN; next < PARTIALS; next += SPAN) {
                V other;
                memcpy(&other, partials[next + lane % SPAN], sizeof(V));
                value.merge(other);
            }
            return reduce_warp<SPAN>(value);
        }
    }
};
