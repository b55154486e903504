// __half: IEEE binary16, rounded to nearest even unless a name says otherwise.
#pragma once

#include "cuda_emulator.h"
#include "cuda_emulator/sixteen_bit_float.h"

namespace cuda_emulator {

inline unsigned short half_bits(float x) {
    const unsigned bits = __builtin_bit_cast(unsigned, x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7fff;
    if (magnitude >= 0x47800000u) return (unsigned short)(sign | 0x7c00u);  // from 2^16 on; below, rounding carries into infinity
    if (magnitude < 0x38800000u) {
        // Subnormal: its unit is that of floats from one half to one, so adding one half rounds it.
        const float shifted = __builtin_bit_cast(float, magnitude) + 0.5f;
        return (unsigned short)(sign | (__builtin_bit_cast(unsigned, shifted) - 0x3f000000u));
    }
    return (unsigned short)(sign | (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13);
}

inline float half_value(unsigned short bits) {
    const unsigned sign = unsigned(bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    if (magnitude > 0x7c00u) return __builtin_bit_cast(float, 0x7fffffffu);
    if (magnitude == 0x7c00u) return __builtin_bit_cast(float, sign | 0x7f800000u);
    if (magnitude < 0x400u) return __builtin_bit_cast(float, sign | __builtin_bit_cast(unsigned, float(magnitude) * 0x1p-24f));
    return __builtin_bit_cast(float, sign | (magnitude << 13) + 0x38000000u);
}

}  // namespace cuda_emulator

CUDA_EMULATOR_SIXTEEN_BIT_FLOAT(__half, __half2, cuda_emulator::half_bits, cuda_emulator::half_value)
typedef __half half;
typedef __half2 half2;

namespace cuda_emulator {
template <> struct Element<__half> { static constexpr char letter = 'h'; static constexpr int bytes = 2; };
template <> struct Element<__half2> : Element<__half> {};
}  // namespace cuda_emulator

static inline __half __float2half(float x) { return __half(x); }
static inline __half __float2half_rn(float x) { return __half(x); }
static inline __half __double2half(double x) { return __half(x); }
static inline __half __int2half_rn(int x) { return __half(x); }
static inline __half __uint2half_rn(unsigned x) { return __half(x); }
static inline float __half2float(__half x) { return float(x); }
static inline int __half2int_rn(__half x) { return __float2int_rn(float(x)); }
static inline int __half2int_rz(__half x) { return __float2int_rz(float(x)); }
static inline __half __ushort_as_half(unsigned short bits) { return __half_raw{bits}; }
static inline __half __short_as_half(short bits) { return __half_raw{(unsigned short)bits}; }
static inline unsigned short __half_as_ushort(__half x) { return x.__x; }
static inline short __half_as_short(__half x) { return short(x.__x); }

static inline __half2 __float2half2_rn(float x) { return {__half(x), __half(x)}; }
static inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
static inline __half2 __float22half2_rn(float2 v) { return {__half(v.x), __half(v.y)}; }
static inline float2 __half22float2(__half2 v) { return {float(v.x), float(v.y)}; }
static inline __half2 __half2half2(__half x) { return {x, x}; }
static inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
static inline __half2 make_half2(__half x, __half y) { return {x, y}; }
static inline __half __low2half(__half2 v) { return v.x; }
static inline __half __high2half(__half2 v) { return v.y; }
static inline float __low2float(__half2 v) { return float(v.x); }
static inline float __high2float(__half2 v) { return float(v.y); }
