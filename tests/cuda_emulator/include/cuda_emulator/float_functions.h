// The floating-point functions of CUDA's device library. The fast intrinsics (__expf, __fdividef, ...) are their accurate
// namesakes: what is right only by their roundings is not right.
#pragma once

#define CUDA_EMULATOR_UNARY(F) F(exp) F(exp2) F(expm1) F(log) F(log2) F(log10) F(log1p) F(sqrt) F(cbrt) F(sin) F(cos) F(tan) \
    F(asin) F(acos) F(atan) F(sinh) F(cosh) F(tanh) F(asinh) F(acosh) F(atanh) F(erf) F(erfc) F(tgamma) F(lgamma)            \
    F(fabs) F(ceil) F(floor) F(trunc) F(round) F(rint) F(nearbyint) F(logb)
#define CUDA_EMULATOR_BINARY(F) F(pow) F(fmod) F(fmax) F(fmin) F(fdim) F(atan2) F(hypot) F(copysign) F(nextafter) F(remainder)

#define CUDA_EMULATOR_DECLARE(NAME) double NAME(double) noexcept; float NAME##f(float) noexcept;
#define CUDA_EMULATOR_DECLARE2(NAME) double NAME(double, double) noexcept; float NAME##f(float, float) noexcept;
extern "C" {
CUDA_EMULATOR_UNARY(CUDA_EMULATOR_DECLARE)
CUDA_EMULATOR_BINARY(CUDA_EMULATOR_DECLARE2)
double fma(double, double, double) noexcept;
float fmaf(float, float, float) noexcept;
double ldexp(double, int) noexcept;
float ldexpf(float, int) noexcept;
double scalbn(double, int) noexcept;
float scalbnf(float, int) noexcept;
double frexp(double, int*) noexcept;
float frexpf(float, int*) noexcept;
double modf(double, double*) noexcept;
float modff(float, float*) noexcept;
void sincos(double, double*, double*) noexcept;
void sincosf(float, float*, float*) noexcept;
int ilogb(double) noexcept;
int ilogbf(float) noexcept;
double nan(const char*) noexcept;
float nanf(const char*) noexcept;
long lrint(double) noexcept;
long lrintf(float) noexcept;
long long llrint(double) noexcept;
long long llrintf(float) noexcept;
long lround(double) noexcept;
long lroundf(float) noexcept;
}

#define CUDA_EMULATOR_OVERLOAD(NAME) static inline float NAME(float x) { return NAME##f(x); }
#define CUDA_EMULATOR_OVERLOAD2(NAME) static inline float NAME(float x, float y) { return NAME##f(x, y); }
CUDA_EMULATOR_UNARY(CUDA_EMULATOR_OVERLOAD)
CUDA_EMULATOR_BINARY(CUDA_EMULATOR_OVERLOAD2)
static inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
static inline float ldexp(float x, int n) { return ldexpf(x, n); }
static inline double pow(double x, int n) { return pow(x, double(n)); }
static inline float pow(float x, int n) { return powf(x, float(n)); }
static inline double pow(float x, double y) { return pow(double(x), y); }
static inline double pow(double x, float y) { return pow(x, double(y)); }

// Those that CUDA has and C has not.
static inline float rsqrtf(float x) { return float(1.0 / sqrt(double(x))); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float rsqrt(float x) { return rsqrtf(x); }
static inline double rcbrt(double x) { return 1.0 / cbrt(x); }
static inline float rcbrtf(float x) { return float(1.0 / cbrt(double(x))); }
static inline double rhypot(double x, double y) { return 1.0 / hypot(x, y); }
static inline float rhypotf(float x, float y) { return float(1.0 / hypot(double(x), double(y))); }
static inline double exp10(double x) { return pow(10.0, x); }
static inline float exp10f(float x) { return float(pow(10.0, double(x))); }
static inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
static inline float normcdff(float x) { return float(normcdf(double(x))); }
static inline float fdividef(float x, float y) { return x / y; }
static inline double sinpi(double x) { return sin(3.14159265358979323846 * fmod(x, 2.0)); }
static inline double cospi(double x) { return cos(3.14159265358979323846 * fmod(x, 2.0)); }
static inline float sinpif(float x) { return float(sinpi(double(x))); }
static inline float cospif(float x) { return float(cospi(double(x))); }
static inline void sincospif(float x, float* s, float* c) { *s = sinpif(x), *c = cospif(x); }
static inline void sincospi(double x, double* s, double* c) { *s = sinpi(x), *c = cospi(x); }
static inline float sinpi(float x) { return sinpif(x); }
static inline float cospi(float x) { return cospif(x); }
static inline void sincospi(float x, float* s, float* c) { sincospif(x, s, c); }

#define CUDA_EMULATOR_CLASSIFY(T)                                              \
    static inline bool isnan(T x) { return __builtin_isnan(x); }               \
    static inline bool isinf(T x) { return __builtin_isinf(x); }               \
    static inline bool isfinite(T x) { return __builtin_isfinite(x); }         \
    static inline bool signbit(T x) { return __builtin_signbit(x); }
CUDA_EMULATOR_CLASSIFY(float)
CUDA_EMULATOR_CLASSIFY(double)
#undef CUDA_EMULATOR_CLASSIFY
static inline int __isnanf(float x) { return __builtin_isnan(x); }
static inline int __isnan(double x) { return __builtin_isnan(x); }
static inline int __isinff(float x) { return __builtin_isinf(x); }
static inline int __isinf(double x) { return __builtin_isinf(x); }
static inline int __finitef(float x) { return __builtin_isfinite(x); }

#define CUDA_EMULATOR_FAST(NAME) static inline float __##NAME##f(float x) { return NAME##f(x); }
CUDA_EMULATOR_FAST(exp) CUDA_EMULATOR_FAST(exp10) CUDA_EMULATOR_FAST(log) CUDA_EMULATOR_FAST(log2) CUDA_EMULATOR_FAST(log10)
CUDA_EMULATOR_FAST(sin) CUDA_EMULATOR_FAST(cos) CUDA_EMULATOR_FAST(tan) CUDA_EMULATOR_FAST(tanh)
#undef CUDA_EMULATOR_FAST
static inline float __powf(float x, float y) { return powf(x, y); }
static inline void __sincosf(float x, float* s, float* c) { sincosf(x, s, c); }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// Arithmetic that the compiler may not contract. Only round-to-nearest is supplied.
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return rsqrtf(x); }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dsub_rn(double x, double y) { return x - y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __ddiv_rn(double x, double y) { return x / y; }
static inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
static inline double __drcp_rn(double x) { return 1.0 / x; }
static inline double __dsqrt_rn(double x) { return sqrt(x); }

// fmax and fmin drop a NaN, and so do max and min of floating-point numbers in device code.
static inline float max(float x, float y) { return fmaxf(x, y); }
static inline float min(float x, float y) { return fminf(x, y); }
static inline double max(double x, double y) { return fmax(x, y); }
static inline double min(double x, double y) { return fmin(x, y); }
static inline double max(float x, double y) { return fmax(double(x), y); }
static inline double max(double x, float y) { return fmax(x, double(y)); }
static inline double min(float x, double y) { return fmin(double(x), y); }
static inline double min(double x, float y) { return fmin(x, double(y)); }
static inline float abs(float x) { return fabsf(x); }
static inline double abs(double x) { return fabs(x); }

#undef CUDA_EMULATOR_UNARY
#undef CUDA_EMULATOR_BINARY
#undef CUDA_EMULATOR_DECLARE
#undef CUDA_EMULATOR_DECLARE2
#undef CUDA_EMULATOR_OVERLOAD
#undef CUDA_EMULATOR_OVERLOAD2
