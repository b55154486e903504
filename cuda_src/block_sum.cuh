// The sum of a block's values, in an order that is the same in every run.
#pragma once

#include "vectors.cuh"

// The sum of the values of a block's THREADS threads, in thread 0.
__device__ double block_sum(double value) {
    __shared__ double of_warp[THREADS / WARP];
    for (int lanes = WARP / 2; lanes; lanes /= 2) value += __shfl_down_sync(0xffffffffu, value, lanes);
    if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = value;
    __syncthreads();
    value = 0;
    if (threadIdx.x == 0)
        for (int warp = 0; warp < THREADS / WARP; ++warp) value += of_warp[warp];
    return value;
}
