// Batch normalisation with its activation: mean and variance are those of a column.
//
// - batch_moments reads the batch once and leaves count, mean and squared deviations of each column and chunk of rows;
//   batch_statistics joins them and moves the running statistics. Neither ever forms E[x²] - E[x]², and both count from
//   the column's first value on: a mean far from 0 would round away what lies between the values.
// - batch_norm normalises and activates in one pass, with the batch's statistics or the running ones.
// - Backward, with dz = ∂C/∂a · act', db = Σ_r dz and dw = Σ_r dz x̂:
//       ∂C/∂x = weight · scale · (dz - db/n - x̂ dw/n)
//   batch_norm_sums leaves the partial sums of db and dw, which column_sum of linear.cu adds up; batch_norm_backward goes
//   over the batch again.

#include "columns.cuh"
#include "normalisation.cuh"
#include "row_group.cuh"

// Of some numbers: how many, their mean, and Σ (x - mean)².
template <class S> struct Moments {
    S count, mean, squares;

    // Welford (1962); share = 1 / (count + 1).
    __device__ void add(S x, S share) {
        const S off = x - mean;
        count += S(1);
        mean += off * share;
        squares += off * (x - mean);
    }
    // Chan, Golub and LeVeque (1979).
    __device__ void merge(const Moments& other) {
        const S total = count + other.count;
        if (total == S(0)) return;
        const S off = other.mean - mean, share = other.count / total;
        mean += off * share;
        squares += other.squares + (off * count) * (off * share);
        count = total;
    }
    __device__ Moments& operator+=(const Moments& other) {
        merge(other);
        return *this;
    }
};

template <int ROWS, bool WHOLE, class S, int N>
__device__ void add_rows(const Columns<N>& columns, Index row, const S* x, const S (&shift)[N], Moments<S> (&moments)[N]) {
    Pack<S, N> pack[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; ++k) pack[k] = columns.template share<WHOLE>(row + k).load(x);
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        const Share<N> share = columns.template share<WHOLE>(row + k);
        const S weight = S(1) / S(row + k - columns.first_row + 1);
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (WHOLE || share.holds(i)) moments[i].add(pack[k].at[i] - shift[i], weight);
    }
}

// partial: as store_sums says, three numbers for each of its sums.
template <class S>
__global__ void __launch_bounds__(THREADS, BLOCKS_AT_ONCE)
    batch_moments(const S* x, S* partial, int width, int span, int rows, Index size) {
    constexpr int N = PACK<S>;
    const Columns<N> columns(size, width, span, rows, lead(x) == 0);
    Moments<S> moments[N] = {};
    S shift[N] = {};
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (columns.column(i) < span) shift[i] = x[columns.column(i) % width];
    Index row = columns.first_row;
#pragma unroll 1
    for (; row + DEPTH <= columns.whole_rows; row += DEPTH) add_rows<DEPTH, true>(columns, row, x, shift, moments);
#pragma unroll 1
    for (; row < columns.last_row; ++row) add_rows<1, false>(columns, row, x, shift, moments);
    store_sums(columns, moments, reinterpret_cast<Moments<S>*>(partial));
}

// Mean and variance of each column, from `rows` rows of partial moments and the first row of x; running ← running + momentum (batch - running),
// where the batch's variance is Σ (x - mean)² / (n - 1). A block takes WARP columns with as many warps.
template <class S>
__global__ void __launch_bounds__(WARP* WARP)
    batch_statistics(const S* partial, const S* x, S* mean, S* variance, S* running_mean, S* running_variance, Index rows,
                     int width, S momentum) {
    __shared__ Moments<S> merged[WARP][WARP + 1];
    const Moments<S>* of_chunk = reinterpret_cast<const Moments<S>*>(partial);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first = blockIdx.x * WARP;
    Moments<S> moments = {};
    if (first + lane < width)
        for (Index row = warp; row < rows; row += WARP) moments.merge(of_chunk[row * width + first + lane]);
    merged[warp][lane] = moments;
    __syncthreads();
    moments = reduce_lanes<WARP>(merged[lane][warp]);
    const int j = first + warp;
    if (lane == 0 && j < width) {
        const S of_batch = x[j] + moments.mean;
        mean[j] = of_batch;
        variance[j] = moments.squares / moments.count;
        running_mean[j] += momentum * (of_batch - running_mean[j]);
        running_variance[j] += momentum * (moments.squares / (moments.count - S(1)) - running_variance[j]);
    }
}

// What a thread needs to know of its columns.
template <class S, int N>
__device__ void load_columns(const Columns<N>& columns, const S* mean, const S* variance, const S* weight, const S* bias,
                             S eps, Normalised<S> (&of)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (columns.column(i) >= columns.span) continue;
        const int j = columns.column(i) % columns.width;
        of[i] = {mean[j], scale_of(variance[j], eps), weight[j], bias[j]};
    }
}

template <int ROWS, bool WHOLE, class Activation, class S, int N>
__device__ void normalise_rows(const Columns<N>& columns, Index row, const S* x, const Normalised<S> (&of)[N], S* out) {
    Pack<S, N> pack[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; ++k) pack[k] = columns.template share<WHOLE>(row + k).load(x);
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
#pragma unroll
        for (int i = 0; i < N; ++i) pack[k].at[i] = Activation::forward(of[i].affine(of[i].standard(pack[k].at[i])));
        columns.template share<WHOLE>(row + k).store(out, pack[k]);
    }
}

// out may be x.
template <class S, class Activation>
__global__ void __launch_bounds__(THREADS, BLOCKS_AT_ONCE)
    batch_norm(const S* x, const S* mean, const S* variance, const S* weight, const S* bias, S* out, int width, int span,
               int rows, Index size, S eps) {
    constexpr int N = PACK<S>;
    const Columns<N> columns(size, width, span, rows, lead(x) == 0 && lead(out) == 0);
    Normalised<S> of[N] = {};
    load_columns(columns, mean, variance, weight, bias, eps, of);
    Index row = columns.first_row;
#pragma unroll 1
    for (; row + DEPTH <= columns.whole_rows; row += DEPTH)
        normalise_rows<DEPTH, true, Activation>(columns, row, x, of, out);
#pragma unroll 1
    for (; row < columns.last_row; ++row) normalise_rows<1, false, Activation>(columns, row, x, of, out);
}

template <int ROWS, bool WHOLE, class Activation, class S, int N>
__device__ void sum_rows(const Columns<N>& columns, Index row, const S* d, const S* x, const Normalised<S> (&of)[N],
                         S (&weight_sum)[N], S (&bias_sum)[N]) {
    Pack<S, N> slope[ROWS], value[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        slope[k] = columns.template share<WHOLE>(row + k).load(d);
        value[k] = columns.template share<WHOLE>(row + k).load(x);
    }
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        const Share<N> share = columns.template share<WHOLE>(row + k);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if (!WHOLE && !share.holds(i)) continue;
            const S standard = of[i].standard(value[k].at[i]);
            const S dz = slope[k].at[i] * Activation::slope(of[i].affine(standard));
            weight_sum[i] += dz * standard;
            bias_sum[i] += dz;
        }
    }
}

// weight_partial, bias_partial: as store_sums says.
template <class S, class Activation>
__global__ void __launch_bounds__(THREADS, BLOCKS_AT_ONCE)
    batch_norm_sums(const S* d, const S* x, const S* mean, const S* variance, const S* weight, const S* bias,
                    S* weight_partial, S* bias_partial, int width, int span, int rows, Index size, S eps) {
    constexpr int N = PACK<S>;
    const Columns<N> columns(size, width, span, rows, lead(d) == 0 && lead(x) == 0);
    Normalised<S> of[N] = {};
    load_columns(columns, mean, variance, weight, bias, eps, of);
    S weight_sum[N] = {}, bias_sum[N] = {};
    Index row = columns.first_row;
#pragma unroll 1
    for (; row + DEPTH <= columns.whole_rows; row += DEPTH)
        sum_rows<DEPTH, true, Activation>(columns, row, d, x, of, weight_sum, bias_sum);
#pragma unroll 1
    for (; row < columns.last_row; ++row) sum_rows<1, false, Activation>(columns, row, d, x, of, weight_sum, bias_sum);
    store_sums(columns, weight_sum, weight_partial);
    __syncthreads();  // both sums go through the same shared memory
    store_sums(columns, bias_sum, bias_partial);
}

template <int ROWS, bool WHOLE, class Activation, class S, int N>
__device__ void derive_rows(const Columns<N>& columns, Index row, S* d, const S* x, const Normalised<S> (&of)[N],
                            const S (&weight_mean)[N], const S (&bias_mean)[N]) {
    Pack<S, N> slope[ROWS], value[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        slope[k] = columns.template share<WHOLE>(row + k).load(d);
        value[k] = columns.template share<WHOLE>(row + k).load(x);
    }
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const S standard = of[i].standard(value[k].at[i]);
            const S dz = slope[k].at[i] * Activation::slope(of[i].affine(standard));
            slope[k].at[i] = of[i].weight * of[i].scale * (dz - bias_mean[i] - standard * weight_mean[i]);
        }
        columns.template share<WHOLE>(row + k).store(d, slope[k]);
    }
}

// d ← ∂C/∂x. row_share: 1/n where mean and variance are those of x, 0 where they are constants.
template <class S, class Activation>
__global__ void __launch_bounds__(THREADS, BLOCKS_AT_ONCE)
    batch_norm_backward(S* d, const S* x, const S* mean, const S* variance, const S* weight, const S* bias,
                        const S* weight_grad, const S* bias_grad, int width, int span, int rows, Index size, S eps,
                        S row_share) {
    constexpr int N = PACK<S>;
    const Columns<N> columns(size, width, span, rows, lead(d) == 0 && lead(x) == 0);
    Normalised<S> of[N] = {};
    load_columns(columns, mean, variance, weight, bias, eps, of);
    S weight_mean[N] = {}, bias_mean[N] = {};
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (columns.column(i) >= span) continue;
        weight_mean[i] = weight_grad[columns.column(i) % width] * row_share;
        bias_mean[i] = bias_grad[columns.column(i) % width] * row_share;
    }
    Index row = columns.first_row;
#pragma unroll 1
    for (; row + DEPTH <= columns.whole_rows; row += DEPTH)
        derive_rows<DEPTH, true, Activation>(columns, row, d, x, of, weight_mean, bias_mean);
#pragma unroll 1
    for (; row < columns.last_row; ++row)
        derive_rows<1, false, Activation>(columns, row, d, x, of, weight_mean, bias_mean);
}
