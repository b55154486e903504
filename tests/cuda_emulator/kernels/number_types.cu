// Half types, vectors, conversions and mathematical functions, for test_number_types.py.

#include <cuda_fp16.h>
#include <cuda_bf16.h>

#define INDEX (blockIdx.x * blockDim.x + threadIdx.x)

template <class H> __global__ void widen(const H* x, float* y) { y[INDEX] = float(x[INDEX]); }
template <class F, class H> __global__ void narrow(const F* x, H* y) { y[INDEX] = H(x[INDEX]); }
template <class H> __global__ void arithmetic(const H* a, const H* b, H* y, int n) {
    const int i = INDEX;
    y[i] = a[i] + b[i];
    y[n + i] = a[i] - b[i];
    y[2 * n + i] = a[i] * b[i];
    y[3 * n + i] = a[i] / b[i];
    y[4 * n + i] = __hfma(a[i], b[i], a[i]);
    y[5 * n + i] = __hmax(a[i], b[i]);
    y[6 * n + i] = -a[i];
    y[7 * n + i] = a[i] < b[i] ? H(1) : H(0);
}
extern "C" __global__ void by_name(const float* x, __half* h, __nv_bfloat16* b, unsigned short* bits, float2* pairs) {
    const int i = threadIdx.x;
    h[i] = __float2half_rn(x[i]);
    b[i] = __float2bfloat16_rn(x[i]);
    bits[2 * i] = __half_as_ushort(__ushort_as_half(__half_as_ushort(__float2half(x[i]))));
    bits[2 * i + 1] = __bfloat16_as_ushort(__ushort_as_bfloat16(__bfloat16_as_ushort(__float2bfloat16(x[i]))));
    const __half2 two = __floats2half2_rn(x[i], 2 * x[i]);
    pairs[i] = __half22float2(__hadd2(two, __half2half2(__half(1.0f))));
}
extern "C" __global__ void layout(int* sizes) {
    const int all[] = {sizeof(float3), alignof(float3), sizeof(float4), alignof(float4), alignof(int2), alignof(double2),
                       sizeof(uchar4), alignof(uchar4), alignof(ushort4), sizeof(uint4), alignof(longlong2), sizeof(__half2), alignof(__half2)};
    for (int i = 0; i < 13; ++i) sizes[i] = all[i];
}
extern "C" __global__ void vectors(const float4* x, float4* y, const uchar4* bytes, int4* ints) {
    const float4 v = x[threadIdx.x];
    y[threadIdx.x] = make_float4(v.w, v.z, v.y, v.x);
    const uchar4 b = bytes[threadIdx.x];
    ints[threadIdx.x] = make_int4(b.x, b.y, b.z, b.w);
}
extern "C" __global__ void to_integers(const float* x, int* nearest, int* down, unsigned* natural) {
    nearest[threadIdx.x] = __float2int_rn(x[threadIdx.x]);
    down[threadIdx.x] = __float2int_rd(x[threadIdx.x]);
    natural[threadIdx.x] = __float2uint_rz(x[threadIdx.x]);
}
extern "C" __global__ void bits(const unsigned* x, unsigned* y) {
    const unsigned v = x[threadIdx.x];
    unsigned* row = y + 8 * threadIdx.x;
    row[0] = __popc(v), row[1] = __clz(int(v)), row[2] = __ffs(int(v)), row[3] = __brev(v);
    row[4] = __umulhi(v, 0x9e3779b9u), row[5] = __byte_perm(v, ~v, 0x7531), row[6] = __float_as_uint(__uint_as_float(v));
    row[7] = unsigned(__umul64hi((unsigned long long)v << 32, 0x100000001ull));
}
extern "C" __global__ void functions(const double* x, double* y, float* z) {
    const double v = x[threadIdx.x];
    const float f = float(v);
    double* wide = y + 10 * threadIdx.x;
    float* slim = z + 10 * threadIdx.x;
    wide[0] = exp(v), wide[1] = log1p(v), wide[2] = rsqrt(v), wide[3] = tanh(v), wide[4] = erf(v);
    wide[5] = fma(v, v, 1.0), wide[6] = max(v, 1.0), wide[7] = pow(v, 2.5), wide[8] = expm1(v), wide[9] = normcdf(v);
    slim[0] = __expf(f), slim[1] = log1pf(f), slim[2] = rsqrtf(f), slim[3] = tanhf(f), slim[4] = erff(f);
    slim[5] = __fmaf_rn(f, f, 1.0f), slim[6] = fmaxf(f, 1.0f), slim[7] = powf(f, 2.5f), slim[8] = expm1f(f), slim[9] = normcdff(f);
}
extern "C" __global__ void maxima_drop_nan(const float* x, float* y) {
    y[0] = max(x[0], 1.0f), y[1] = fminf(1.0f, x[0]), y[2] = isnan(x[0]), y[3] = isfinite(x[0]), y[4] = isinf(x[1]);
}
