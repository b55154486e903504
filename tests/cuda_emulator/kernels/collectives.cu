// Every warp collective and counting barrier, for test_collectives.py.

template <class T> __global__ void shuffle(const T* x, T* y, int mode, int operand, int width) {
    const T v = x[threadIdx.x];
    T result;
    if (mode == 0) result = __shfl_sync(~0u, v, operand, width);
    else if (mode == 1) result = __shfl_up_sync(~0u, v, operand, width);
    else if (mode == 2) result = __shfl_down_sync(~0u, v, operand, width);
    else result = __shfl_xor_sync(~0u, v, operand, width);
    y[threadIdx.x] = result;
}

extern "C" __global__ void votes(const int* predicate, unsigned mask, unsigned* ballot, int* any, int* all) {
    if (!(mask >> threadIdx.x & 1)) return;
    ballot[threadIdx.x] = __ballot_sync(mask, predicate[threadIdx.x]);
    any[threadIdx.x] = __any_sync(mask, predicate[threadIdx.x]);
    all[threadIdx.x] = __all_sync(mask, predicate[threadIdx.x]);
}

extern "C" __global__ void reductions(const int* x, int* signed_results, unsigned* unsigned_results) {
    const int v = x[threadIdx.x], n = blockDim.x, i = threadIdx.x;
    signed_results[i] = __reduce_add_sync(~0u, v);
    signed_results[n + i] = __reduce_min_sync(~0u, v);
    signed_results[2 * n + i] = __reduce_max_sync(~0u, v);
    unsigned_results[i] = __reduce_min_sync(~0u, unsigned(v));
    unsigned_results[n + i] = __reduce_max_sync(~0u, unsigned(v));
    unsigned_results[2 * n + i] = __reduce_and_sync(~0u, unsigned(v));
    unsigned_results[3 * n + i] = __reduce_or_sync(~0u, unsigned(v));
    unsigned_results[4 * n + i] = __reduce_xor_sync(~0u, unsigned(v));
}

extern "C" __global__ void matches(const int* x, unsigned* any, unsigned* all, int* alike) {
    any[threadIdx.x] = __match_any_sync(~0u, x[threadIdx.x]);
    all[threadIdx.x] = __match_all_sync(~0u, x[threadIdx.x], &alike[threadIdx.x]);
}

extern "C" __global__ void block_votes(const int* predicate, int* count, int* any, int* all) {
    const int i = threadIdx.x;
    count[i] = __syncthreads_count(predicate[i]);
    any[i] = __syncthreads_or(predicate[i]);
    all[i] = __syncthreads_and(predicate[i]);
}

// Both halves of a warp work on their own, at two lines, and one takes more steps than the other.
extern "C" __global__ void halves(const float* x, float* y) {
    float v = x[threadIdx.x];
    if (threadIdx.x % 32 < 16) {
        for (int d = 8; d; d /= 2) v += __shfl_xor_sync(0x0000ffffu, v, d);
    } else {
        for (int d = 8; d > 2; d /= 2) v += __shfl_xor_sync(0xffff0000u, v, d);
    }
    __syncwarp();
    y[threadIdx.x] = v;
}

extern "C" __global__ void partial_warp(unsigned* lanes, unsigned* active) {
    active[threadIdx.x] = __activemask();
    lanes[threadIdx.x] = __ballot_sync(0xffffffffu, 1);
}
