// CUDA's built-in vectors. Their alignment is the device's: a vector of 8 or 16 bytes is one aligned access there, and a
// misaligned one a fault.
#pragma once

#define CUDA_EMULATOR_VECTORS(T, NAME, ALIGN1, ALIGN2, ALIGN4)                        \
    struct __attribute__((aligned(ALIGN1))) NAME##1 { T x; };                         \
    struct __attribute__((aligned(ALIGN2))) NAME##2 { T x, y; };                      \
    struct __attribute__((aligned(ALIGN1))) NAME##3 { T x, y, z; };                   \
    struct __attribute__((aligned(ALIGN4))) NAME##4 { T x, y, z, w; };                \
    static inline NAME##1 make_##NAME##1(T x) { return {x}; }                         \
    static inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }                 \
    static inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; }         \
    static inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }

CUDA_EMULATOR_VECTORS(signed char, char, 1, 2, 4)
CUDA_EMULATOR_VECTORS(unsigned char, uchar, 1, 2, 4)
CUDA_EMULATOR_VECTORS(short, short, 2, 4, 8)
CUDA_EMULATOR_VECTORS(unsigned short, ushort, 2, 4, 8)
CUDA_EMULATOR_VECTORS(int, int, 4, 8, 16)
CUDA_EMULATOR_VECTORS(unsigned int, uint, 4, 8, 16)
CUDA_EMULATOR_VECTORS(long, long, 8, 16, 16)
CUDA_EMULATOR_VECTORS(unsigned long, ulong, 8, 16, 16)
CUDA_EMULATOR_VECTORS(long long, longlong, 8, 16, 16)
CUDA_EMULATOR_VECTORS(unsigned long long, ulonglong, 8, 16, 16)
CUDA_EMULATOR_VECTORS(float, float, 4, 8, 16)
CUDA_EMULATOR_VECTORS(double, double, 8, 16, 16)
#undef CUDA_EMULATOR_VECTORS

struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    constexpr operator uint3() const { return {x, y, z}; }
};
