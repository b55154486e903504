// A number type of 16 bits with the face that CUDA gives __half and __nv_bfloat16. Arithmetic is float's, rounded once: with 24
// bits float carries enough that the sum, product, quotient and root of two such numbers round as if they were exact.
#pragma once

namespace cuda_emulator {

// Rounds to float so that a second rounding, to 16 bits, is right: what is inexact gets an odd last bit.
inline float round_to_odd(double x) {
    const float nearest = float(x);
    if (double(nearest) == x || nearest != nearest) return nearest;
    const unsigned bits = __builtin_bit_cast(unsigned, nearest);
    if (bits & 1u) return nearest;
    const bool rounded_up = fabs(double(nearest)) > fabs(x);
    return __builtin_bit_cast(float, rounded_up ? bits - 1u : bits + 1u);
}

}  // namespace cuda_emulator

// TYPE and its pair PAIR; FROM turns a float into the bits and TO the bits into a float.
#define CUDA_EMULATOR_SIXTEEN_BIT_FLOAT(TYPE, PAIR, FROM, TO)                                                        \
    struct __attribute__((aligned(2))) TYPE##_raw { unsigned short x; };                                             \
    struct __attribute__((aligned(2))) TYPE {                                                                        \
        unsigned short __x;                                                                                          \
        TYPE() = default;                                                                                            \
        constexpr TYPE(TYPE##_raw r) : __x(r.x) {}                                                                   \
        TYPE(float v) : __x(FROM(v)) {}                                                                              \
        TYPE(double v) : __x(FROM(cuda_emulator::round_to_odd(v))) {}                                                \
        TYPE(int v) : TYPE(double(v)) {}                                                                             \
        TYPE(unsigned v) : TYPE(double(v)) {}                                                                        \
        TYPE(long long v) : TYPE(double(v)) {}                                                                       \
        TYPE(unsigned long long v) : TYPE(double(v)) {}                                                              \
        TYPE(short v) : TYPE(float(v)) {}                                                                            \
        TYPE(unsigned short v) : TYPE(double(v)) {}                                                                  \
        operator float() const { return TO(__x); }                                                                   \
        operator TYPE##_raw() const { return {__x}; }                                                                \
        TYPE& operator=(float v) { return __x = FROM(v), *this; }                                                    \
        TYPE& operator=(double v) { return *this = TYPE(v); }                                                        \
        TYPE& operator+=(const TYPE& b) { return *this = TYPE(float(*this) + float(b)); }                            \
        TYPE& operator-=(const TYPE& b) { return *this = TYPE(float(*this) - float(b)); }                            \
        TYPE& operator*=(const TYPE& b) { return *this = TYPE(float(*this) * float(b)); }                            \
        TYPE& operator/=(const TYPE& b) { return *this = TYPE(float(*this) / float(b)); }                            \
    };                                                                                                               \
    struct __attribute__((aligned(4))) PAIR {                                                                        \
        TYPE x, y;                                                                                                   \
        PAIR() = default;                                                                                            \
        PAIR(TYPE a, TYPE b) : x(a), y(b) {}                                                                         \
    };                                                                                                               \
    static inline TYPE operator+(const TYPE& a, const TYPE& b) { return TYPE(float(a) + float(b)); }                 \
    static inline TYPE operator-(const TYPE& a, const TYPE& b) { return TYPE(float(a) - float(b)); }                 \
    static inline TYPE operator*(const TYPE& a, const TYPE& b) { return TYPE(float(a) * float(b)); }                 \
    static inline TYPE operator/(const TYPE& a, const TYPE& b) { return TYPE(float(a) / float(b)); }                 \
    static inline TYPE operator-(const TYPE& a) { return TYPE##_raw{(unsigned short)(a.__x ^ 0x8000u)}; }            \
    static inline TYPE operator+(const TYPE& a) { return a; }                                                        \
    static inline bool operator==(const TYPE& a, const TYPE& b) { return float(a) == float(b); }                     \
    static inline bool operator!=(const TYPE& a, const TYPE& b) { return float(a) != float(b); }                     \
    static inline bool operator<(const TYPE& a, const TYPE& b) { return float(a) < float(b); }                       \
    static inline bool operator>(const TYPE& a, const TYPE& b) { return float(a) > float(b); }                       \
    static inline bool operator<=(const TYPE& a, const TYPE& b) { return float(a) <= float(b); }                     \
    static inline bool operator>=(const TYPE& a, const TYPE& b) { return float(a) >= float(b); }                     \
    static inline TYPE __hadd(TYPE a, TYPE b) { return a + b; }                                                      \
    static inline TYPE __hsub(TYPE a, TYPE b) { return a - b; }                                                      \
    static inline TYPE __hmul(TYPE a, TYPE b) { return a * b; }                                                      \
    static inline TYPE __hdiv(TYPE a, TYPE b) { return a / b; }                                                      \
    static inline TYPE __hneg(TYPE a) { return -a; }                                                                 \
    static inline TYPE __habs(TYPE a) { return TYPE##_raw{(unsigned short)(a.__x & 0x7fffu)}; }                      \
    static inline TYPE __hfma(TYPE a, TYPE b, TYPE c) { return TYPE(double(float(a)) * float(b) + float(c)); }       \
    static inline TYPE __hmax(TYPE a, TYPE b) { return TYPE(fmaxf(a, b)); }                                          \
    static inline TYPE __hmin(TYPE a, TYPE b) { return TYPE(fminf(a, b)); }                                          \
    static inline bool __heq(TYPE a, TYPE b) { return a == b; }                                                      \
    static inline bool __hne(TYPE a, TYPE b) { return a != b; }                                                      \
    static inline bool __hlt(TYPE a, TYPE b) { return a < b; }                                                       \
    static inline bool __hle(TYPE a, TYPE b) { return a <= b; }                                                      \
    static inline bool __hgt(TYPE a, TYPE b) { return a > b; }                                                       \
    static inline bool __hge(TYPE a, TYPE b) { return a >= b; }                                                      \
    static inline bool __hisnan(TYPE a) { return isnan(float(a)); }                                                  \
    static inline int __hisinf(TYPE a) { return isinf(float(a)) ? (float(a) > 0.0f ? 1 : -1) : 0; }                  \
    static inline TYPE hexp(TYPE a) { return TYPE(exp(double(float(a)))); }                                          \
    static inline TYPE hlog(TYPE a) { return TYPE(log(double(float(a)))); }                                          \
    static inline TYPE hsqrt(TYPE a) { return TYPE(sqrtf(a)); }                                                      \
    static inline TYPE hrsqrt(TYPE a) { return TYPE(rsqrt(double(float(a)))); }                                      \
    static inline TYPE hrcp(TYPE a) { return TYPE(1.0f / float(a)); }                                                \
    static inline PAIR __hadd2(PAIR a, PAIR b) { return {a.x + b.x, a.y + b.y}; }                                    \
    static inline PAIR __hsub2(PAIR a, PAIR b) { return {a.x - b.x, a.y - b.y}; }                                    \
    static inline PAIR __hmul2(PAIR a, PAIR b) { return {a.x * b.x, a.y * b.y}; }                                    \
    static inline PAIR __h2div(PAIR a, PAIR b) { return {a.x / b.x, a.y / b.y}; }                                    \
    static inline PAIR __hfma2(PAIR a, PAIR b, PAIR c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }    \
    static inline PAIR __hmax2(PAIR a, PAIR b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }                      \
    static inline PAIR __hmin2(PAIR a, PAIR b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }                      \
    static inline PAIR __hneg2(PAIR a) { return {-a.x, -a.y}; }                                                      \
    static inline PAIR operator+(const PAIR& a, const PAIR& b) { return __hadd2(a, b); }                             \
    static inline PAIR operator-(const PAIR& a, const PAIR& b) { return __hsub2(a, b); }                             \
    static inline PAIR operator*(const PAIR& a, const PAIR& b) { return __hmul2(a, b); }                             \
    static inline PAIR operator/(const PAIR& a, const PAIR& b) { return __h2div(a, b); }                             \
    CUDA_EMULATOR_SHUFFLES(TYPE)                                                                                     \
    CUDA_EMULATOR_SHUFFLES(PAIR)
