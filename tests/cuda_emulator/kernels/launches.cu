// Kernels with arguments, grids and shared memory of every kind, for test_launches.py.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

struct Pair { int first; float second; };

template <class T> __global__ void scale(const T* __restrict__ x, T* y, long long n, T factor) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = T(x[i] * factor);
}

extern "C" {
__global__ void coordinates(int* out) {
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    int* row = out + 6 * ((long long)block * (blockDim.x * blockDim.y * blockDim.z) + thread);
    row[0] = blockIdx.x, row[1] = blockIdx.y, row[2] = blockIdx.z, row[3] = threadIdx.x, row[4] = threadIdx.y, row[5] = threadIdx.z;
}

__global__ void through_dynamic_shared(const float* x, float* y, int n) {
    extern __shared__ __align__(16) unsigned char bytes[];
    float* buffer = reinterpret_cast<float*>(bytes);
    for (int i = threadIdx.x; i < n; i += blockDim.x) buffer[i] = x[i];
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = buffer[n - 1 - i];
}

__global__ void all_widths(signed char a, unsigned short b, int c, long long d, __half e, float f, double g, bool h, Pair p, double* out) {
    out[0] = a, out[1] = b, out[2] = c, out[3] = double(d), out[4] = float(e), out[5] = f, out[6] = g, out[7] = h;
    out[8] = p.first, out[9] = p.second;
}

__global__ void take_bfloat16(const __nv_bfloat16* x, void* raw, float2* pairs) {}

__global__ void is_null(const float* p, int* out) { out[0] = p == nullptr; }

__device__ unsigned arrivals;

// The last block to arrive adds what all blocks wrote.
__global__ void last_block_adds(const float* x, float* partial, float* total, int fenced) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = x[blockIdx.x];
        if (fenced) __threadfence();
        last = atomicInc(&arrivals, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        float sum = 0;
        for (int b = 0; b < gridDim.x; ++b) sum += partial[b];
        *total = sum;
    }
}

__global__ void histogram(const int* x, int* counts, float* sum) {
    __shared__ int here[4];
    if (threadIdx.x < 4) here[threadIdx.x] = 0;
    __syncthreads();
    atomicAdd(&here[x[threadIdx.x]], 1);
    atomicAdd(sum, 1.0f);
    __syncthreads();
    if (threadIdx.x < 4) atomicMax(&counts[threadIdx.x], here[threadIdx.x]);
}
}
