// Layer normalisation with its activation: mean and variance are those of a row.
//
// - 8 threads, a warp or a block have a row. It is read from memory once; the second read, for the variance, and the third,
//   for the output, are of the thread's own elements, which the L1 cache still has.
// - The mean is summed of differences from the row's first value, so a row of equal values has variance 0. Where that value
//   is an outlier, Σ (x - mean), summed in the pass for the variance, corrects the mean.
// - Backward, with dz = ∂C/∂a · act' and g = weight · dz, means over the row:
//       ∂C/∂x = scale · (g - mean(g) - x̂ mean(g x̂))
//   The same pass adds up the partial column sums of the parameters' gradients: each thread keeps those of its own columns
//   for the block's rows, in shared memory, or for long rows in the block's row of the partial sums.
// - Rows may be of a half type S; statistics, parameters and sums are of the type C in which S is computed.

#include "normalisation.cuh"
#include "row_group.cuh"

template <class S> struct Sum {
    S value;
    __device__ void merge(const Sum& other) { value += other.value; }
};

template <class S> struct RowSums {
    S plain, product;
    __device__ void merge(const RowSums& other) {
        plain += other.plain;
        product += other.product;
    }
};

// Calls f(j) for each vector of V columns that a thread has of a row, j its first column; DEEP of them are loaded together.
template <int ROW_THREADS, int V, int DEEP, class F> __device__ void each_vector(int rank, int width, F f) {
#pragma unroll DEEP
    for (int j = rank * V; j < width; j += ROW_THREADS * V) f(j);
}

template <int V, class S> __device__ Vector<S, V> loaded(const S* from) {
    Vector<S, V> vector;
    vector.load(from);
    return vector;
}

template <int V, class Activation, class S, class C, int ROW_THREADS>
__device__ void normalise_row(const RowGroup<ROW_THREADS>& group, const S* x, const C* weight, const C* bias, S* out,
                              C* mean, C* variance, int width, C eps) {
    const C shift = width ? C(x[0]) : C(0);
    Sum<C> sum = {0};
    each_vector<ROW_THREADS, V, 4>(group.rank, width, [&](int j) {
        const Vector<S, V> vector = loaded<V>(x + j);
#pragma unroll
        for (int i = 0; i < V; ++i) sum.value += C(vector.at[i]) - shift;
    });
    NormParams<C> params = {};
    params.mean = shift + group.template reduce<0>(sum).value / C(width);
    RowSums<C> sums = {0, 0};
    each_vector<ROW_THREADS, V, 4>(group.rank, width, [&](int j) {
        const Vector<S, V> vector = loaded<V>(x + j);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const C off = C(vector.at[i]) - params.mean;
            sums.plain += off;
            sums.product += off * off;
        }
    });
    sums = group.template reduce<1>(sums);
    const C row_variance = sums.product / C(width);
    params.mean += sums.plain / C(width);
    params.scale = scale_of(row_variance, eps);
    each_vector<ROW_THREADS, V, 4>(group.rank, width, [&](int j) {
        const Vector<C, V> w = loaded<V>(weight + j), b = loaded<V>(bias + j);
        Vector<S, V> vector = loaded<V>(x + j);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            params.weight = w.at[i], params.bias = b.at[i];
            vector.at[i] = S(Activation::forward(params.affine(params.standardised(C(vector.at[i])))));
        }
        vector.store(out + j);
    });
    if (width && group.rank == 0) *mean = params.mean, *variance = row_variance;
}

// out may be x.
template <class S, class Activation, int ROW_THREADS>
__global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
    layer_norm(const S* x, const Compute<S>* weight, const Compute<S>* bias, S* out, Compute<S>* mean,
               Compute<S>* variance, Index n, int width, Compute<S> eps) {
    constexpr int N = VECTOR_WIDTH<S>;
    const RowGroup<ROW_THREADS> group;
    const bool vectorized = width % N == 0 && aligned<N>(x) && aligned<N>(weight) && aligned<N>(bias) && aligned<N>(out);
    const Index row = min(group.row, n - 1), begin = row * width;
    // A row out of range has no columns, but its threads take part in the reductions.
    const int columns = group.row < n ? width : 0;
    mean += row, variance += row;
    if (vectorized) normalise_row<N, Activation>(group, x + begin, weight, bias, out + begin, mean, variance, columns, eps);
    else normalise_row<1, Activation>(group, x + begin, weight, bias, out + begin, mean, variance, columns, eps);
}

// Vector::store writes to global memory only.
template <class S, int V> __device__ void put(S* to, const Vector<S, V>& vector) {
    typename Vector<S, V>::Word words[Vector<S, V>::ACCESSES];
    memcpy(words, vector.at, sizeof(words));
#pragma unroll
    for (int i = 0; i < Vector<S, V>::ACCESSES; ++i) reinterpret_cast<typename Vector<S, V>::Word*>(to)[i] = words[i];
}

// One row: d ← ∂C/∂x, and adds the row to the column sums of the thread's columns.
template <int V, class Activation, class S, class C, int ROW_THREADS>
__device__ void derive_row(const RowGroup<ROW_THREADS>& group, S* d, const S* x, NormParams<C> params, const C* weight,
                           const C* bias, C* weight_sum, C* bias_sum, int width) {
    RowSums<C> sums = {0, 0};
    each_vector<ROW_THREADS, V, 1>(group.rank, width, [&](int j) {
        const Vector<C, V> w = loaded<V>(weight + j), b = loaded<V>(bias + j);
        const Vector<S, V> slope = loaded<V>(d + j), value = loaded<V>(x + j);
        Vector<C, V> weight_vector = loaded<V>(weight_sum + j), bias_vector = loaded<V>(bias_sum + j);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            params.weight = w.at[i], params.bias = b.at[i];
            const C standardised = params.standardised(C(value.at[i]));
            const C dz = C(slope.at[i]) * Activation::slope(params.affine(standardised));
            weight_vector.at[i] += dz * standardised;
            bias_vector.at[i] += dz;
            sums.plain += params.weight * dz;
            sums.product += params.weight * dz * standardised;
        }
        put(weight_sum + j, weight_vector);
        put(bias_sum + j, bias_vector);
    });
    sums = group.template reduce<0>(sums);
    const C plain = sums.plain / C(width), along = sums.product / C(width);
    each_vector<ROW_THREADS, V, 1>(group.rank, width, [&](int j) {
        const Vector<C, V> w = loaded<V>(weight + j), b = loaded<V>(bias + j);
        const Vector<S, V> value = loaded<V>(x + j);
        Vector<S, V> slope = loaded<V>(d + j);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            params.weight = w.at[i], params.bias = b.at[i];
            const C standardised = params.standardised(C(value.at[i]));
            const C dz = C(slope.at[i]) * Activation::slope(params.affine(standardised));
            slope.at[i] = S(params.scale * (params.weight * dz - plain - standardised * along));
        }
        slope.store(d + j);
    });
}

template <int V, class Activation, class S, class C, int ROW_THREADS>
__device__ void derive_rows(RowGroup<ROW_THREADS>& group, S* d, const S* x, const C* mean, const C* variance, const C* weight,
                            const C* bias, C* weight_sum, C* bias_sum, Index first, Index last, int width, C eps) {
    const int groups = blockDim.x / ROW_THREADS;
    const Vector<C, V> zeros = {};
    each_vector<ROW_THREADS, V, 1>(group.rank, width, [&](int j) {
        put(weight_sum + j, zeros);
        put(bias_sum + j, zeros);
    });
#pragma unroll 1
    for (Index base = first; base < last; base += groups) {
        const bool in_range = base + threadIdx.x / ROW_THREADS < last;
        const Index row = in_range ? base + threadIdx.x / ROW_THREADS : first;
        NormParams<C> params = {};
        params.mean = mean[row], params.scale = scale_of(variance[row], eps);
        derive_row<V, Activation>(group, d + row * width, x + row * width, params, weight, bias, weight_sum, bias_sum,
                                  in_range ? width : 0);
        if (!RowGroup<ROW_THREADS>::IN_WARP) __syncthreads();  // the next row is reduced in the same shared memory
    }
}

// d ← ∂C/∂x. weight_partial, bias_partial: a row of column sums for each block, which has `rows` rows. in_shared: whether
// the launch gives shared memory for two sums of each column and group; else a block must be one group.
template <class S, class Activation, int ROW_THREADS>
__global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
    layer_norm_backward(S* d, const S* x, const Compute<S>* mean, const Compute<S>* variance, const Compute<S>* weight,
                        const Compute<S>* bias, Compute<S>* weight_partial, Compute<S>* bias_partial, Index n, int width,
                        int rows, bool in_shared, Compute<S> eps) {
    typedef Compute<S> C;
    constexpr int N = VECTOR_WIDTH<S>;
    extern __shared__ uint4 sums[];
    RowGroup<ROW_THREADS> group;
    const Index first = Index(blockIdx.x) * rows, last = min(first + rows, n);
    weight_partial += Index(blockIdx.x) * width;
    bias_partial += Index(blockIdx.x) * width;
    C* weight_sum = weight_partial;
    C* bias_sum = bias_partial;
    if (in_shared) {
        weight_sum = reinterpret_cast<C*>(sums) + int(threadIdx.x) / ROW_THREADS * 2 * width;
        bias_sum = weight_sum + width;
    }
    const bool vectorized = width % N == 0 && aligned<N>(d) && aligned<N>(x) && aligned<N>(weight) && aligned<N>(bias) &&
                        aligned<N>(weight_partial) && aligned<N>(bias_partial);
    if (vectorized)
        derive_rows<N, Activation>(group, d, x, mean, variance, weight, bias, weight_sum, bias_sum, first, last, width, eps);
    else
        derive_rows<1, Activation>(group, d, x, mean, variance, weight, bias, weight_sum, bias_sum, first, last, width, eps);
    if (!in_shared) return;
    __syncthreads();
    const C* group_sums = reinterpret_cast<const C*>(sums);
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
        C weight_total = 0, bias_total = 0;
        for (int k = 0; k < int(blockDim.x) / ROW_THREADS; ++k) {
            weight_total += group_sums[k * 2 * width + j];
            bias_total += group_sums[(k * 2 + 1) * width + j];
        }
        weight_partial[j] = weight_total;
        bias_partial[j] = bias_total;
    }
}
