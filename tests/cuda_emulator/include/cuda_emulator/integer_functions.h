// Integer intrinsics, bit casts, and conversions between numbers: those saturate on a GPU where C++ leaves them undefined.
#pragma once

#define CUDA_EMULATOR_ORDERED(T)                                         \
    static inline T max(T x, T y) { return x > y ? x : y; }              \
    static inline T min(T x, T y) { return x < y ? x : y; }
CUDA_EMULATOR_ORDERED(int)
CUDA_EMULATOR_ORDERED(unsigned)
CUDA_EMULATOR_ORDERED(long)
CUDA_EMULATOR_ORDERED(unsigned long)
CUDA_EMULATOR_ORDERED(long long)
CUDA_EMULATOR_ORDERED(unsigned long long)
#undef CUDA_EMULATOR_ORDERED
static inline unsigned max(int x, unsigned y) { return max(unsigned(x), y); }
static inline unsigned max(unsigned x, int y) { return max(x, unsigned(y)); }
static inline unsigned min(int x, unsigned y) { return min(unsigned(x), y); }
static inline unsigned min(unsigned x, int y) { return min(x, unsigned(y)); }
static inline unsigned umax(unsigned x, unsigned y) { return max(x, y); }
static inline unsigned umin(unsigned x, unsigned y) { return min(x, y); }
static inline long long llmax(long long x, long long y) { return max(x, y); }
static inline long long llmin(long long x, long long y) { return min(x, y); }
static inline int abs(int x) { return x < 0 ? -x : x; }
static inline long abs(long x) { return x < 0 ? -x : x; }
static inline long long abs(long long x) { return x < 0 ? -x : x; }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline unsigned __brev(unsigned x) {
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}
static inline unsigned long long __brevll(unsigned long long x) {
    return (unsigned long long)__brev(unsigned(x)) << 32 | __brev(unsigned(x >> 32));
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const unsigned long long bytes = (unsigned long long)y << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned pick = selector >> (4 * i);
        unsigned byte = unsigned(bytes >> (8 * (pick & 7))) & 0xffu;
        if (pick & 8) byte = byte & 0x80u ? 0xffu : 0u;
        result |= byte << (8 * i);
    }
    return result;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((unsigned long long)high << 32 | low) << (shift & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((unsigned long long)high << 32 | low) >> (shift & 31));
}

static inline int __mulhi(int x, int y) { return int((long long)x * y >> 32); }
static inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned((unsigned long long)x * y >> 32); }
static inline long long __mul64hi(long long x, long long y) { return (long long)((__int128)x * y >> 64); }
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned long long)((unsigned __int128)x * y >> 64);
}
static inline int __mul24(int x, int y) { return int(unsigned(x << 8 >> 8) * unsigned(y << 8 >> 8)); }
static inline unsigned __umul24(unsigned x, unsigned y) { return (x & 0xffffffu) * (y & 0xffffffu); }

#define CUDA_EMULATOR_BIT_CAST(NAME, TO, FROM) \
    static inline TO NAME(FROM x) { return __builtin_bit_cast(TO, x); }
CUDA_EMULATOR_BIT_CAST(__int_as_float, float, int)
CUDA_EMULATOR_BIT_CAST(__uint_as_float, float, unsigned)
CUDA_EMULATOR_BIT_CAST(__float_as_int, int, float)
CUDA_EMULATOR_BIT_CAST(__float_as_uint, unsigned, float)
CUDA_EMULATOR_BIT_CAST(__longlong_as_double, double, long long)
CUDA_EMULATOR_BIT_CAST(__double_as_longlong, long long, double)
#undef CUDA_EMULATOR_BIT_CAST
static inline int __double2hiint(double x) { return int(__double_as_longlong(x) >> 32); }
static inline int __double2loint(double x) { return int(__double_as_longlong(x)); }
static inline double __hiloint2double(int high, int low) {
    return __longlong_as_double((long long)((unsigned long long)unsigned(high) << 32 | unsigned(low)));
}

namespace cuda_emulator {

// A GPU saturates where the number does not fit, and makes zero of a NaN.
template <class I> inline I saturated(double x) {
    constexpr bool is_signed = I(-1) < I(0);
    constexpr int bits = sizeof(I) * 8 - is_signed;
    const double limit = bits == 63 ? 0x1p63 : bits == 64 ? 0x1p64 : double(1ull << (bits & 63));
    const I largest = I(~0ull >> (64 - bits));
    if (x != x) return 0;
    if (x >= limit) return largest;
    if (x < (is_signed ? -limit : 0.0)) return is_signed ? I(-largest - 1) : I(0);
    return I(x);
}

}  // namespace cuda_emulator

#define CUDA_EMULATOR_TO_INTEGER(FROM, TO, F, I)                                                                    \
    static inline I __##FROM##2##TO##_rn(F x) { return cuda_emulator::saturated<I>(rint(double(x))); }              \
    static inline I __##FROM##2##TO##_rz(F x) { return cuda_emulator::saturated<I>(trunc(double(x))); }             \
    static inline I __##FROM##2##TO##_ru(F x) { return cuda_emulator::saturated<I>(ceil(double(x))); }              \
    static inline I __##FROM##2##TO##_rd(F x) { return cuda_emulator::saturated<I>(floor(double(x))); }
CUDA_EMULATOR_TO_INTEGER(float, int, float, int)
CUDA_EMULATOR_TO_INTEGER(float, uint, float, unsigned)
CUDA_EMULATOR_TO_INTEGER(float, ll, float, long long)
CUDA_EMULATOR_TO_INTEGER(float, ull, float, unsigned long long)
CUDA_EMULATOR_TO_INTEGER(double, int, double, int)
CUDA_EMULATOR_TO_INTEGER(double, uint, double, unsigned)
CUDA_EMULATOR_TO_INTEGER(double, ll, double, long long)
CUDA_EMULATOR_TO_INTEGER(double, ull, double, unsigned long long)
#undef CUDA_EMULATOR_TO_INTEGER
static inline float __int2float_rn(int x) { return float(x); }
static inline float __uint2float_rn(unsigned x) { return float(x); }
static inline float __ll2float_rn(long long x) { return float(x); }
static inline float __ull2float_rn(unsigned long long x) { return float(x); }
static inline float __double2float_rn(double x) { return float(x); }
static inline double __int2double_rn(int x) { return x; }
static inline double __uint2double_rn(unsigned x) { return x; }
static inline double __ll2double_rn(long long x) { return double(x); }
static inline double __ull2double_rn(unsigned long long x) { return double(x); }
