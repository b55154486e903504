// Layer normalisation with its activation: mean and variance are those of a row.
//
// - 8 lanes, a warp or a block take a row. It comes from memory once; what a lane reads again, a second time for the
//   variance and a third for the output, is its own and still in the L1 cache.
// - The mean is summed from the row's first value on, so a row of equal values has variance 0. Should that be the odd one
//   out, what Σ (x - mean) leaves in the variance's pass puts the mean right.
// - Backward, with dz = ∂C/∂a · act' and g = weight · dz, means over the row:
//       ∂C/∂x = scale · (g - mean(g) - x̂ mean(g x̂))
//   One pass more gives the partial column sums of the parameters' gradients on the way: each lane keeps those of its own
//   columns for the block's rows, in shared memory, or where rows are too long in the block's row of the partial sums.
// - Rows may be of a half type S; statistics, parameters and sums are of the type C in which S is computed.

#include "normalisation.cuh"
#include "row_group.cuh"

template <class S> struct Sum {
    S value;
    __device__ void merge(const Sum& other) { value += other.value; }
};

template <class S> struct Sums {
    S plain, product;
    __device__ void merge(const Sums& other) {
        plain += other.plain;
        product += other.product;
    }
};

// f(j) for the packs of V columns that a lane has of a row, j the first of each; the loads of DEEP of them go together.
template <int LANES, int V, int DEEP, class F> __device__ void each_pack(int lane, int width, F f) {
#pragma unroll DEEP
    for (int j = lane * V; j < width; j += LANES * V) f(j);
}

template <int V, class S> __device__ Pack<S, V> loaded(const S* from) {
    Pack<S, V> pack;
    pack.load(from);
    return pack;
}

template <int V, class Activation, class S, class C, int LANES>
__device__ void normalise_row(const RowGroup<LANES>& group, const S* x, const C* weight, const C* bias, S* out, C* mean,
                              C* variance, int width, C eps) {
    const C shift = width ? C(x[0]) : C(0);
    Sum<C> sum = {0};
    each_pack<LANES, V, 4>(group.lane, width, [&](int j) {
        const Pack<S, V> pack = loaded<V>(x + j);
#pragma unroll
        for (int i = 0; i < V; ++i) sum.value += C(pack.at[i]) - shift;
    });
    Normalised<C> of = {};
    of.mean = shift + group.template reduce<0>(sum).value / C(width);
    Sums<C> sums = {0, 0};
    each_pack<LANES, V, 4>(group.lane, width, [&](int j) {
        const Pack<S, V> pack = loaded<V>(x + j);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const C off = C(pack.at[i]) - of.mean;
            sums.plain += off;
            sums.product += off * off;
        }
    });
    sums = group.template reduce<1>(sums);
    const C of_row = sums.product / C(width);
    of.mean += sums.plain / C(width);
    of.scale = scale_of(of_row, eps);
    each_pack<LANES, V, 4>(group.lane, width, [&](int j) {
        const Pack<C, V> w = loaded<V>(weight + j), b = loaded<V>(bias + j);
        Pack<S, V> pack = loaded<V>(x + j);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            of.weight = w.at[i], of.bias = b.at[i];
            pack.at[i] = S(Activation::forward(of.affine(of.standard(C(pack.at[i])))));
        }
        pack.store(out + j);
    });
    if (width && group.lane == 0) *mean = of.mean, *variance = of_row;
}

// out may be x.
template <class S, class Activation, int LANES>
__global__ void __launch_bounds__(THREADS, BLOCKS_AT_ONCE)
    layer_norm(const S* x, const Compute<S>* weight, const Compute<S>* bias, S* out, Compute<S>* mean,
               Compute<S>* variance, Index n, int width, Compute<S> eps) {
    constexpr int N = PACK<S>;
    const RowGroup<LANES> group;
    const bool packed = width % N == 0 && aligned<N>(x) && aligned<N>(weight) && aligned<N>(bias) && aligned<N>(out);
    const Index row = min(group.row, n - 1), begin = row * width;
    // A row that is not there has no columns, but takes part in what the lanes do together.
    const int columns = group.row < n ? width : 0;
    mean += row, variance += row;
    if (packed) normalise_row<N, Activation>(group, x + begin, weight, bias, out + begin, mean, variance, columns, eps);
    else normalise_row<1, Activation>(group, x + begin, weight, bias, out + begin, mean, variance, columns, eps);
}

// Pack::store writes to global memory only.
template <class S, int V> __device__ void put(S* to, const Pack<S, V>& pack) {
    typename Pack<S, V>::Word words[Pack<S, V>::ACCESSES];
    memcpy(words, pack.at, sizeof(words));
#pragma unroll
    for (int i = 0; i < Pack<S, V>::ACCESSES; ++i) reinterpret_cast<typename Pack<S, V>::Word*>(to)[i] = words[i];
}

// One row: d ← ∂C/∂x, and its part of the column sums added to those of the lane's columns.
template <int V, class Activation, class S, class C, int LANES>
__device__ void derive_row(const RowGroup<LANES>& group, S* d, const S* x, Normalised<C> of, const C* weight,
                           const C* bias, C* weight_sum, C* bias_sum, int width) {
    Sums<C> sums = {0, 0};
    each_pack<LANES, V, 1>(group.lane, width, [&](int j) {
        const Pack<C, V> w = loaded<V>(weight + j), b = loaded<V>(bias + j);
        const Pack<S, V> slope = loaded<V>(d + j), value = loaded<V>(x + j);
        Pack<C, V> of_weight = loaded<V>(weight_sum + j), of_bias = loaded<V>(bias_sum + j);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            of.weight = w.at[i], of.bias = b.at[i];
            const C standard = of.standard(C(value.at[i]));
            const C dz = C(slope.at[i]) * Activation::slope(of.affine(standard));
            of_weight.at[i] += dz * standard;
            of_bias.at[i] += dz;
            sums.plain += of.weight * dz;
            sums.product += of.weight * dz * standard;
        }
        put(weight_sum + j, of_weight);
        put(bias_sum + j, of_bias);
    });
    sums = group.template reduce<0>(sums);
    const C plain = sums.plain / C(width), along = sums.product / C(width);
    each_pack<LANES, V, 1>(group.lane, width, [&](int j) {
        const Pack<C, V> w = loaded<V>(weight + j), b = loaded<V>(bias + j);
        const Pack<S, V> value = loaded<V>(x + j);
        Pack<S, V> slope = loaded<V>(d + j);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            of.weight = w.at[i], of.bias = b.at[i];
            const C standard = of.standard(C(value.at[i]));
            const C dz = C(slope.at[i]) * Activation::slope(of.affine(standard));
            slope.at[i] = S(of.scale * (of.weight * dz - plain - standard * along));
        }
        slope.store(d + j);
    });
}

template <int V, class Activation, class S, class C, int LANES>
__device__ void derive_rows(RowGroup<LANES>& group, S* d, const S* x, const C* mean, const C* variance, const C* weight,
                            const C* bias, C* weight_sum, C* bias_sum, Index first, Index last, int width, C eps) {
    const int groups = blockDim.x / LANES;
    const Pack<C, V> zeros = {};
    each_pack<LANES, V, 1>(group.lane, width, [&](int j) {
        put(weight_sum + j, zeros);
        put(bias_sum + j, zeros);
    });
#pragma unroll 1
    for (Index base = first; base < last; base += groups) {
        const bool there = base + threadIdx.x / LANES < last;
        const Index row = there ? base + threadIdx.x / LANES : first;
        Normalised<C> of = {};
        of.mean = mean[row], of.scale = scale_of(variance[row], eps);
        derive_row<V, Activation>(group, d + row * width, x + row * width, of, weight, bias, weight_sum, bias_sum,
                                  there ? width : 0);
        if (!RowGroup<LANES>::IN_WARP) __syncthreads();  // the next row is reduced in the same place
    }
}

// d ← ∂C/∂x. weight_partial, bias_partial: a row of column sums for each block, which has `rows` rows. in_shared: whether
// the launch gives shared memory for two sums of each column and group; else a block must be one group.
template <class S, class Activation, int LANES>
__global__ void __launch_bounds__(THREADS, BLOCKS_AT_ONCE)
    layer_norm_backward(S* d, const S* x, const Compute<S>* mean, const Compute<S>* variance, const Compute<S>* weight,
                        const Compute<S>* bias, Compute<S>* weight_partial, Compute<S>* bias_partial, Index n, int width,
                        int rows, bool in_shared, Compute<S> eps) {
    typedef Compute<S> C;
    constexpr int N = PACK<S>;
    extern __shared__ uint4 sums[];
    RowGroup<LANES> group;
    const Index first = Index(blockIdx.x) * rows, last = min(first + rows, n);
    weight_partial += Index(blockIdx.x) * width;
    bias_partial += Index(blockIdx.x) * width;
    C* weight_sum = weight_partial;
    C* bias_sum = bias_partial;
    if (in_shared) {
        weight_sum = reinterpret_cast<C*>(sums) + int(threadIdx.x) / LANES * 2 * width;
        bias_sum = weight_sum + width;
    }
    const bool packed = width % N == 0 && aligned<N>(d) && aligned<N>(x) && aligned<N>(weight) && aligned<N>(bias) &&
                        aligned<N>(weight_partial) && aligned<N>(bias_partial);
    if (packed)
        derive_rows<N, Activation>(group, d, x, mean, variance, weight, bias, weight_sum, bias_sum, first, last, width, eps);
    else
        derive_rows<1, Activation>(group, d, x, mean, variance, weight, bias, weight_sum, bias_sum, first, last, width, eps);
    if (!in_shared) return;
    __syncthreads();
    const C* of_groups = reinterpret_cast<const C*>(sums);
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
        C weight_total = 0, bias_total = 0;
        for (int k = 0; k < int(blockDim.x) / LANES; ++k) {
            weight_total += of_groups[k * 2 * width + j];
            bias_total += of_groups[(k * 2 + 1) * width + j];
        }
        weight_partial[j] = weight_total;
        bias_partial[j] = bias_total;
    }
}
