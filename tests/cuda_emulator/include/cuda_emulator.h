// What NVRTC declares before the first line of a kernel's source, for g++. It comes with no system header, so that a source
// which needs one (<cstdint>, INFINITY, std::exp) fails here as it fails under NVRTC.
#pragma once

#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define __CUDA_EMULATOR__ 1
#define __CUDACC_VER_MAJOR__ 12
#define __CUDACC_VER_MINOR__ 9
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 800
#endif

#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __cluster_dims__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __attribute__((aligned(n)))

// All lanes run on one thread of the operating system, so its thread-local variables are shared by a block, and the
// undefined ones of `extern __shared__` get their address when the module is linked.
#define __shared__ thread_local

#define CUDA_EMULATOR_EXPORT extern "C" __attribute__((visibility("default")))
#define CUDA_EMULATOR_SITE int line = __builtin_LINE(), const char* file = __builtin_FILE()

typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
typedef long clock_t;
#define NULL __null

extern "C" {
int printf(const char* format, ...) noexcept;
void* memcpy(void* to, const void* from, size_t bytes) noexcept;
void* memset(void* to, int value, size_t bytes) noexcept;
}

#include "cuda_emulator/vector_types.h"
#include "cuda_emulator/execution.h"
#include "cuda_emulator/float_functions.h"
#include "cuda_emulator/integer_functions.h"
#include "cuda_emulator/memory_functions.h"
#include "cuda_emulator/kernel_signature.h"
