// Batch normalisation with its activation: mean and variance are those of a column.
//
// - batch_moments reads the batch once and stores count, mean and squared deviations of each column and chunk of rows;
//   batch_statistics merges them and updates the running statistics. Neither computes E[x²] - E[x]², and both subtract the
//   column's first value first: with a mean far from 0, the differences between values would be rounded away.
// - batch_norm normalises and activates in one pass, with the batch's statistics or the running ones.
// - Backward, with dz = ∂C/∂a · act', db = Σ_r dz and dw = Σ_r dz x̂:
//       ∂C/∂x = weight · scale · (dz - db/n - x̂ dw/n)
//   batch_norm_sums stores the partial sums of db and dw, which column_sum of linear.cu adds up; batch_norm_backward goes
//   over the batch again.
// - The batch may be of a half type S; statistics, parameters and sums are of the type C in which S is computed.

#include "columns.cuh"
#include "normalisation.cuh"
#include "row_group.cuh"

// A thread has as many columns as one access moves elements of C, since it keeps the parameters of each in registers. It
// loads as many rows together as make up for the shorter accesses of a half type.
template <class S> constexpr int COLUMNS = VECTOR_WIDTH<Compute<S>>;
template <class S> constexpr int IN_FLIGHT = DEPTH * VECTOR_WIDTH<S> / COLUMNS<S>;

// Count and mean of some numbers, and Σ (x - mean)².
template <class S> struct Moments {
    S count, mean, squares;

    // Welford (1962); weight = 1 / (count + 1).
    __device__ void add(S x, S weight) {
        const S off = x - mean;
        count += S(1);
        mean += off * weight;
        squares += off * (x - mean);
    }
    // Chan, Golub and LeVeque (1979).
    __device__ void merge(const Moments& other) {
        const S total = count + other.count;
        if (total == S(0)) return;
        const S off = other.mean - mean, weight = other.count / total;
        mean += off * weight;
        squares += other.squares + (off * count) * (off * weight);
        count = total;
    }
    __device__ Moments& operator+=(const Moments& other) {
        merge(other);
        return *this;
    }
};

template <int ROWS, bool FULL, class S, class C, int N>
__device__ void add_rows(const Columns<N>& columns, Index row, const S* x, const C (&shift)[N], Moments<C> (&moments)[N]) {
    Vector<S, N> vector[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; ++k) vector[k] = columns.template slice<FULL>(row + k).load(x);
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        const ThreadSlice<N> slice = columns.template slice<FULL>(row + k);
        const C weight = C(1) / C(row + k - columns.first_row + 1);
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (FULL || slice.holds(i)) moments[i].add(C(vector[k].at[i]) - shift[i], weight);
    }
}

// partial: as store_sums says, three numbers for each of its sums.
template <class S>
__global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
    batch_moments(const S* x, Compute<S>* partial, int width, int span, int rows, Index size) {
    typedef Compute<S> C;
    constexpr int N = COLUMNS<S>, ROWS = IN_FLIGHT<S>;
    const Columns<N> columns(size, width, span, rows, misalignment(x) == 0);
    Moments<C> moments[N] = {};
    C shift[N] = {};
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (columns.column(i) < span) shift[i] = C(x[columns.column(i) % width]);
    Index row = columns.first_row;
#pragma unroll 1
    for (; row + ROWS <= columns.full_rows; row += ROWS) add_rows<ROWS, true>(columns, row, x, shift, moments);
#pragma unroll 1
    for (; row < columns.last_row; ++row) add_rows<1, false>(columns, row, x, shift, moments);
    store_sums(columns, moments, reinterpret_cast<Moments<C>*>(partial));
}

// Mean and variance of each column, from `rows` rows of partial moments and the first row of x; running ← running +
// momentum (batch - running), where the batch's variance is Σ (x - mean)² / (n - 1). A block takes WARP columns with as
// many warps.
template <class S>
__global__ void __launch_bounds__(WARP* WARP)
    batch_statistics(const Compute<S>* partial, const S* x, Compute<S>* mean, Compute<S>* variance,
                     Compute<S>* running_mean, Compute<S>* running_variance, Index rows, int width, Compute<S> momentum) {
    typedef Compute<S> C;
    __shared__ Moments<C> merged[WARP][WARP + 1];
    const Moments<C>* chunk_moments = reinterpret_cast<const Moments<C>*>(partial);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first = blockIdx.x * WARP;
    Moments<C> moments = {};
    if (first + lane < width)
        for (Index row = warp; row < rows; row += WARP) moments.merge(chunk_moments[row * width + first + lane]);
    merged[warp][lane] = moments;
    __syncthreads();
    moments = reduce_warp<WARP>(merged[lane][warp]);
    const int j = first + warp;
    if (lane == 0 && j < width) {
        const C batch_mean = C(x[j]) + moments.mean;
        mean[j] = batch_mean;
        variance[j] = moments.squares / moments.count;
        running_mean[j] += momentum * (batch_mean - running_mean[j]);
        running_variance[j] += momentum * (moments.squares / (moments.count - C(1)) - running_variance[j]);
    }
}

// The parameters of a thread's columns.
template <class C, int N>
__device__ void load_columns(const Columns<N>& columns, const C* mean, const C* variance, const C* weight, const C* bias,
                             C eps, NormParams<C> (&params)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (columns.column(i) >= columns.span) continue;
        const int j = columns.column(i) % columns.width;
        params[i] = {mean[j], scale_of(variance[j], eps), weight[j], bias[j]};
    }
}

template <int ROWS, bool FULL, class Activation, class S, class C, int N>
__device__ void normalise_rows(const Columns<N>& columns, Index row, const S* x, const NormParams<C> (&params)[N], S* out) {
    Vector<S, N> vector[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; ++k) vector[k] = columns.template slice<FULL>(row + k).load(x);
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
#pragma unroll
        for (int i = 0; i < N; ++i)
            vector[k].at[i] = S(Activation::forward(params[i].affine(params[i].standardised(C(vector[k].at[i])))));
        columns.template slice<FULL>(row + k).store(out, vector[k]);
    }
}

// out may be x.
template <class S, class Activation>
__global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
    batch_norm(const S* x, const Compute<S>* mean, const Compute<S>* variance, const Compute<S>* weight,
               const Compute<S>* bias, S* out, int width, int span, int rows, Index size, Compute<S> eps) {
    constexpr int N = COLUMNS<S>, ROWS = IN_FLIGHT<S>;
    const Columns<N> columns(size, width, span, rows, misalignment(x) == 0 && misalignment(out) == 0);
    NormParams<Compute<S>> params[N] = {};
    load_columns(columns, mean, variance, weight, bias, eps, params);
    Index row = columns.first_row;
#pragma unroll 1
    for (; row + ROWS <= columns.full_rows; row += ROWS)
        normalise_rows<ROWS, true, Activation>(columns, row, x, params, out);
#pragma unroll 1
    for (; row < columns.last_row; ++row) normalise_rows<1, false, Activation>(columns, row, x, params, out);
}

template <int ROWS, bool FULL, class Activation, class S, class C, int N>
__device__ void sum_rows(const Columns<N>& columns, Index row, const S* d, const S* x, const NormParams<C> (&params)[N],
                         C (&weight_sum)[N], C (&bias_sum)[N]) {
    Vector<S, N> slope[ROWS], value[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        slope[k] = columns.template slice<FULL>(row + k).load(d);
        value[k] = columns.template slice<FULL>(row + k).load(x);
    }
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        const ThreadSlice<N> slice = columns.template slice<FULL>(row + k);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if (!FULL && !slice.holds(i)) continue;
            const C standardised = params[i].standardised(C(value[k].at[i]));
            const C dz = C(slope[k].at[i]) * Activation::slope(params[i].affine(standardised));
            weight_sum[i] += dz * standardised;
            bias_sum[i] += dz;
        }
    }
}

// weight_partial, bias_partial: as store_sums says.
template <class S, class Activation>
__global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
    batch_norm_sums(const S* d, const S* x, const Compute<S>* mean, const Compute<S>* variance, const Compute<S>* weight,
                    const Compute<S>* bias, Compute<S>* weight_partial, Compute<S>* bias_partial, int width, int span,
                    int rows, Index size, Compute<S> eps) {
    typedef Compute<S> C;
    constexpr int N = COLUMNS<S>, ROWS = IN_FLIGHT<S>;
    const Columns<N> columns(size, width, span, rows, misalignment(d) == 0 && misalignment(x) == 0);
    NormParams<C> params[N] = {};
    load_columns(columns, mean, variance, weight, bias, eps, params);
    C weight_sum[N] = {}, bias_sum[N] = {};
    Index row = columns.first_row;
#pragma unroll 1
    for (; row + ROWS <= columns.full_rows; row += ROWS)
        sum_rows<ROWS, true, Activation>(columns, row, d, x, params, weight_sum, bias_sum);
#pragma unroll 1
    for (; row < columns.last_row; ++row) sum_rows<1, false, Activation>(columns, row, d, x, params, weight_sum, bias_sum);
    store_sums(columns, weight_sum, weight_partial);
    __syncthreads();  // both calls use the same shared memory
    store_sums(columns, bias_sum, bias_partial);
}

template <int ROWS, bool FULL, class Activation, class S, class C, int N>
__device__ void derive_rows(const Columns<N>& columns, Index row, S* d, const S* x, const NormParams<C> (&params)[N],
                            const C (&weight_mean)[N], const C (&bias_mean)[N]) {
    Vector<S, N> slope[ROWS], value[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        slope[k] = columns.template slice<FULL>(row + k).load(d);
        value[k] = columns.template slice<FULL>(row + k).load(x);
    }
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const C standardised = params[i].standardised(C(value[k].at[i]));
            const C dz = C(slope[k].at[i]) * Activation::slope(params[i].affine(standardised));
            slope[k].at[i] = S(params[i].weight * params[i].scale * (dz - bias_mean[i] - standardised * weight_mean[i]));
        }
        columns.template slice<FULL>(row + k).store(d, slope[k]);
    }
}

// d ← ∂C/∂x. row_share: 1/n where mean and variance are those of x, 0 where they are constants.
template <class S, class Activation>
__global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
    batch_norm_backward(S* d, const S* x, const Compute<S>* mean, const Compute<S>* variance, const Compute<S>* weight,
                        const Compute<S>* bias, const Compute<S>* weight_grad, const Compute<S>* bias_grad, int width,
                        int span, int rows, Index size, Compute<S> eps, Compute<S> row_share) {
    typedef Compute<S> C;
    constexpr int N = COLUMNS<S>, ROWS = IN_FLIGHT<S>;
    const Columns<N> columns(size, width, span, rows, misalignment(d) == 0 && misalignment(x) == 0);
    NormParams<C> params[N] = {};
    load_columns(columns, mean, variance, weight, bias, eps, params);
    C weight_mean[N] = {}, bias_mean[N] = {};
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (columns.column(i) >= span) continue;
        weight_mean[i] = weight_grad[columns.column(i) % width] * row_share;
        bias_mean[i] = bias_grad[columns.column(i) % width] * row_share;
    }
    Index row = columns.first_row;
#pragma unroll 1
    for (; row + ROWS <= columns.full_rows; row += ROWS)
        derive_rows<ROWS, true, Activation>(columns, row, d, x, params, weight_mean, bias_mean);
#pragma unroll 1
    for (; row < columns.last_row; ++row)
        derive_rows<1, false, Activation>(columns, row, d, x, params, weight_mean, bias_mean);
}
