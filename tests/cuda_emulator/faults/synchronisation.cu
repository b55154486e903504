// Kernels with and without one mistake of synchronisation. Tests find lines by the words after "//:".

// Each thread of a block needs a value that another warp wrote.
template <bool healthy> __global__ void reverse_block(const float* x, float* y) {
    __shared__ float tile[128];
    tile[threadIdx.x] = x[threadIdx.x];  //: block write
    if (healthy) __syncthreads();
    y[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];  //: block read
}

// The tile is used twice: without the second barrier, the next round's write meets this round's read.
template <bool healthy> __global__ void sum_of_mirrors(const float* x, float* y, int rounds) {
    __shared__ float tile[128];
    float sum = 0;
    for (int i = 0; i < rounds; ++i) {
        tile[threadIdx.x] = x[i * blockDim.x + threadIdx.x];  //: reuse write
        __syncthreads();
        sum += tile[blockDim.x - 1 - threadIdx.x];  //: reuse read
        if (healthy) __syncthreads();
    }
    y[threadIdx.x] = sum;
}

// The same within a warp.
template <bool healthy> __global__ void rotate_warp(const float* x, float* y) {
    __shared__ float tile[32];
    tile[threadIdx.x] = x[threadIdx.x];  //: warp write
    if (healthy) __syncwarp();
    y[threadIdx.x] = tile[(threadIdx.x + 1) % 32];  //: warp read
}

// Two blocks write one place.
template <bool healthy> __global__ void block_index(float* y) {
    if (threadIdx.x == 0) y[healthy ? blockIdx.x : blockIdx.x / 2] = float(blockIdx.x);  //: shared place
}

// Lane 2 learns from lane 1 that lane 0 has written.
template <bool healthy> __global__ void chain_of_lanes(float* y) {
    __shared__ float box;
    if (threadIdx.x == 0) box = 1;  //: lane 0 writes
    if (threadIdx.x <= 1) __syncwarp(0x3);
    if (threadIdx.x == 1 || threadIdx.x == 2) __syncwarp(0x6);
    if (threadIdx.x == (healthy ? 2 : 3)) y[0] = box;  //: another lane reads
}

// Lane 0 first meets the last lane, then lane 1, which may wait for it all the while.
template <bool healthy> __global__ void overlapping_masks(float* y) {
    if (threadIdx.x == 0 || threadIdx.x == 31) __syncwarp(0x80000001);    //: first and last
    if (threadIdx.x <= 1) __syncwarp(0x3);                                  //: first and second
    if (!healthy && threadIdx.x == 31) __syncwarp(0x80000002);            //: last and second
    __syncthreads();                                                      //: all
    y[threadIdx.x] = 1;
}

template <bool healthy> __global__ void early_return(float* y, int n) {
    const bool idle = int(threadIdx.x) >= n;
    if (!healthy && idle) return;
    __syncthreads();  //: met by some
    if (!idle) y[threadIdx.x] = 1;
}

template <bool healthy> __global__ void two_barriers(float* y) {
    if (healthy || threadIdx.x < 32) {
        __syncthreads();  //: one barrier
    } else {
        __syncthreads();  //: another barrier
    }
    y[threadIdx.x] = 1;
}

template <bool healthy> __global__ void mask_without_caller(float* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(healthy ? 0xffffu : 0xfffeu, float(threadIdx.x), 1);  //: left out
}

template <bool healthy> __global__ void mask_without_source(float* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffu, float(threadIdx.x), healthy ? 5 : 20);  //: not in mask
}

template <bool healthy> __global__ void source_has_returned(float* y) {
    if (!healthy && threadIdx.x >= 16) return;
    y[threadIdx.x] = __shfl_down_sync(0xffffffffu, float(threadIdx.x), 8);  //: returned
}

template <bool healthy> __global__ void masks_differ(float* y) {
    const unsigned mask = healthy ? 0xffffffffu : threadIdx.x < 16 ? 0xffffffffu : 0xffff8000u;
    y[threadIdx.x] = float(__ballot_sync(mask, 1));  //: with two masks
}

template <bool healthy> __global__ void calls_differ(float* y) {
    if (healthy || threadIdx.x < 16) {
        __syncwarp();  //: one call
    } else {
        __syncwarp();  //: another call
    }
    y[threadIdx.x] = 1;
}

template <bool healthy> __global__ void half_warp_deadlock(float* y) {
    if (healthy || threadIdx.x % 32 < 16) y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);  //: half a warp
    __syncthreads();  //: the rest
}

template <bool healthy> __global__ void wait_for_a_later_block(volatile int* flag) {
    if (blockIdx.x == 1) flag[0] = 1;
    while (!healthy && flag[0] == 0) {  //: spins
    }
}
