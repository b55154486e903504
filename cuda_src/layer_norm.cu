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

template <int V, class Activation, class S, int LANES>
__device__ void normalise_row(const RowGroup<LANES>& group, const S* x, const S* weight, const S* bias, S* out, S* mean,
                              S* variance, int width, S eps) {
    const S shift = width ? x[0] : S(0);
    Sum<S> sum = {0};
    each_pack<LANES, V, 4>(group.lane, width, [&](int j) {
        const Pack<S, V> pack = loaded<V>(x + j);
#pragma unroll
        for (int i = 0; i < V; ++i) sum.value += pack.at[i] - shift;
    });
    Normalised<S> of = {};
    of.mean = shift + group.template reduce<0>(sum).value / S(width);
    Sums<S> sums = {0, 0};
    each_pack<LANES, V, 4>(group.lane, width, [&](int j) {
        const Pack<S, V> pack = loaded<V>(x + j);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const S off = pack.at[i] - of.mean;
            sums.plain += off;
            sums.product += off * off;
        }
    });
    sums = group.template reduce<1>(sums);
    const S of_row = sums.product / S(width);
    of.mean += sums.plain / S(width);
    of.scale = scale_of(of_row, eps);
    each_pack<LANES, V, 4>(group.lane, width, [&](int j) {
        const Pack<S, V> w = loaded<V>(weight + j), b = loaded<V>(bias + j);
        Pack<S, V> pack = loaded<V>(x + j);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            of.weight = w.at[i], of.bias = b.at[i];
            pack.at[i] = Activation::forward(of.affine(of.standard(pack.at[i])));
        }
        pack.store(out + j);
    });
    if (width && group.lane == 0) *mean = of.mean, *variance = of_row;
}

// out may be x.
template <class S, class Activation, int LANES>
__global__ void __launch_bounds__(THREADS, BLOCKS_AT_ONCE)
    layer_norm(const S* x, const S* weight, const S* bias, S* out, S* mean, S* variance, Index n, int width, S eps) {
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
    typename Pack<S, V>::Word word;
    memcpy(&word, pack.at, sizeof(word));
    *reinterpret_cast<typename Pack<S, V>::Word*>(to) = word;
}

// One row: d ← ∂C/∂x, and its part of the column sums added to those of the lane's columns.
template <int V, class Activation, class S, int LANES>
__device__ void derive_row(const RowGroup<LANES>& group, S* d, const S* x, Normalised<S> of, const S* weight,
                           const S* bias, S* weight_sum, S* bias_sum, int width) {
    Sums<S> sums = {0, 0};
    each_pack<LANES, V, 1>(group.lane, width, [&](int j) {
        const Pack<S, V> w = loaded<V>(weight + j), b = loaded<V>(bias + j), slope = loaded<V>(d + j), value = loaded<V>(x + j);
        Pack<S, V> of_weight = loaded<V>(weight_sum + j), of_bias = loaded<V>(bias_sum + j);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            of.weight = w.at[i], of.bias = b.at[i];
            const S standard = of.standard(value.at[i]);
            const S dz = slope.at[i] * Activation::slope(of.affine(standard));
            of_weight.at[i] += dz * standard;
            of_bias.at[i] += dz;
            sums.plain += of.weight * dz;
            sums.product += of.weight * dz * standard;
        }
        put(weight_sum + j, of_weight);
        put(bias_sum + j, of_bias);
    });
    sums = group.template reduce<0>(sums);
    const S plain = sums.plain / S(width), along = sums.product / S(width);
    each_pack<LANES, V, 1>(group.lane, width, [&](int j) {
        const Pack<S, V> w = loaded<V>(weight + j), b = loaded<V>(bias + j), value = loaded<V>(x + j);
        Pack<S, V> slope = loaded<V>(d + j);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            of.weight = w.at[i], of.bias = b.at[i];
            const S standard = of.standard(value.at[i]);
            const S dz = slope.at[i] * Activation::slope(of.affine(standard));
            slope.at[i] = of.scale * (of.weight * dz - plain - standard * along);
        }
        slope.store(d + j);
    });
}

template <int V, class Activation, class S, int LANES>
__device__ void derive_rows(RowGroup<LANES>& group, S* d, const S* x, const S* mean, const S* variance, const S* weight,
                            const S* bias, S* weight_sum, S* bias_sum, Index first, Index last, int width, S eps) {
    const int groups = blockDim.x / LANES;
    const Pack<S, V> zeros = {};
    each_pack<LANES, V, 1>(group.lane, width, [&](int j) {
        put(weight_sum + j, zeros);
        put(bias_sum + j, zeros);
    });
#pragma unroll 1
    for (Index base = first; base < last; base += groups) {
        const bool there = base + threadIdx.x / LANES < last;
        const Index row = there ? base + threadIdx.x / LANES : first;
        Normalised<S> of = {};
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
    layer_norm_backward(S* d, const S* x, const S* mean, const S* variance, const S* weight, const S* bias,
                        S* weight_partial, S* bias_partial, Index n, int width, int rows, bool in_shared, S eps) {
    constexpr int N = PACK<S>;
    extern __shared__ uint4 sums[];
    RowGroup<LANES> group;
    const Index first = Index(blockIdx.x) * rows, last = min(first + rows, n);
    weight_partial += Index(blockIdx.x) * width;
    bias_partial += Index(blockIdx.x) * width;
    S* weight_sum = weight_partial;
    S* bias_sum = bias_partial;
    if (in_shared) {
        weight_sum = reinterpret_cast<S*>(sums) + int(threadIdx.x) / LANES * 2 * width;
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
    const S* of_groups = reinterpret_cast<const S*>(sums);
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
        S weight_total = 0, bias_total = 0;
        for (int k = 0; k < int(blockDim.x) / LANES; ++k) {
            weight_total += of_groups[k * 2 * width + j];
            bias_total += of_groups[(k * 2 + 1) * width + j];
        }
        weight_partial[j] = weight_total;
        bias_partial[j] = bias_total;
    }
}
