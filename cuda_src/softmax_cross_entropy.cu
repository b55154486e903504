// Loss and gradient of the softmax cross entropy with its all-but-one terms, in one launch. README.md derives the formulas.
//
// With y smoothed first, A_t = w_t y_t and B_t = λ w_t (1-y_t), a row's cost and gradient are
//
//   C   = A log1p(q) + Σ_t A_t (M₁-z_t) - B_k ln(1-p_k) + Σ_{t≠k} B_t log1p(o_t)
//   g_k = p_k (A' - R + B_k) - A_k c_k
//   g_j = s_j (c_k (A - R) - B_k p_k) + B_j o_j - A_j                                  j ≠ k
//
// where A = Σ_t A_t,  A' = Σ_{t≠k} A_t,  R = Σ_{t≠k} B_t o_t.
//
// - Reads the logits once and writes the gradient once wherever a row fits on the chip; dz may be z.
// - Class indices are never expanded to one-hot rows: every class is treated as a wrong one, and scalars correct the label.
// - Never stores p, and never computes 1 - p.
//
// Where to change what: CrossEntropy is a row operation, as row_operation.cuh lists its members. begin_row() finds the
// label of a row and decides whether the row counts; weights() gives A_t and B_t; add_logits() and add_odds() sum over
// the classes; finish_row() computes C, g_k and the factors of g_j; compute_outputs() computes g_j. The kernels at the
// end pass it to the drivers of row_strategies.cuh, which load, reduce and store the row.
#include "cross_entropy_sums.cuh"
#include "row_strategies.cuh"

template <class T> struct IsIndex { static constexpr bool value = false; };
template <> struct IsIndex<int> { static constexpr bool value = true; };
template <> struct IsIndex<Index> { static constexpr bool value = true; };

template <class A, class B, bool FIRST> struct Either { typedef A type; };
template <class A, class B> struct Either<A, B, false> { typedef B type; };

// S: type of the logits. T: int or long long for class indices, or the type of dense targets. WEIGHTED: class indices with
// class weights. COMPLEMENT: λ ≠ 0.
template <class S, class T, bool WEIGHTED, bool COMPLEMENT> struct CrossEntropy {
    typedef S Storage;
    typedef Compute<S> C;
    static constexpr bool INDEXED = IsIndex<T>::value, UNIFORM_CLASSES = INDEXED && !WEIGHTED;
    static constexpr bool OUTPUTS_FROM_LOGITS = false, NEEDS_ODDS = COMPLEMENT;
    typedef typename Either<UniformGaps<C>, ClassWeightedGaps<C>, UNIFORM_CLASSES>::type LogitSums;
    typedef typename Either<UniformOdds<C>, ClassWeightedOdds<C>, UNIFORM_CLASSES>::type OddsSums;

    // The kernel's arguments.
    const T* y;
    C* loss;
    const C* class_weight;  // may be null
    const C* row_scale;     // may be null
    Index ignore_index;
    int has_ignore_index;
    C scale;
    // For w = 1, with smoothing: A_t is a_off + a_gain at the label and a_off at other classes, B_t is b_on and b_off.
    // Dense targets are smoothed as y_t a_gain + a_off.
    C a_off, a_gain, b_off, b_on, complement_weight;

    // Of the row, by the member that sets them. factor: scale · row_scale. inactive_value: loss and gradient of a row that
    // does not count.
    Index row;                 // begin_row()
    int length;                // begin_row()
    int label;                 // begin_row(): the class that y names, with UNIFORM_CLASSES only
    int target;                // begin_row(): the class that y names
    bool active, ignored;      // begin_row()
    bool label_is_argmax;      // set_argmax()
    bool has_masked_target;    // finish_row()
    C label_logit;             // the driver
    C a_k, b_k;                // set_argmax(); finish_row() with UNIFORM_CLASSES
    C factor, inactive_value;  // finish_row()
    C e_factor, odds_factor, offset, grad_at_argmax, grad_at_label;  // finish_row()

    // A row with factor 0 or with ignore_index has loss and gradient 0; one with an index out of range has NaN.
    __device__ bool begin_row(Index the_row, int m, bool in_range) {
        row = the_row;
        length = m;
        label = target = NO_COLUMN;
        ignored = row_factor() == 0;
        bool out_of_range = false;
        if constexpr (INDEXED) {
            const T given = y[row];
            ignored = ignored || (has_ignore_index && Index(given) == ignore_index);
            out_of_range = given < 0 || Index(given) >= m;
            if (!ignored && !out_of_range) target = int(given);
            if (UNIFORM_CLASSES && in_range) label = target;
        }
        active = in_range && !ignored && !out_of_range;
        return active;
    }

    __device__ C row_factor() const { return row_scale == nullptr ? scale : scale * row_scale[row]; }

    __device__ auto targets(Index row, int m) const {
        if constexpr (INDEXED) return NoTargets();
        else return GlobalTargets<T>{y + row * m};
    }

    template <int M, int WARPS> __device__ auto stage_targets(Index first, int elements, int lane, int warp) const {
        if constexpr (INDEXED) {
            return NoTargets();
        } else {
            typedef Tile<T, M, C> Targets;
            __shared__ Targets tiles[WARPS];
            tiles[warp].load(y + first * M, elements, lane);
            return StagedTargets<C>{tiles[warp].at + lane * Targets::PITCH};
        }
    }

    // A_t and B_t of neighbouring classes.
    template <int N, class Targets>
    __device__ void weights(int column, const Targets& targets, C (&a)[N], C (&b)[N]) const {
        if constexpr (INDEXED) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const bool is_label = column + i == target;
                a[i] = is_label ? a_off + a_gain : a_off;
                b[i] = is_label ? b_on : b_off;
            }
        } else {
            targets.read(column, a);
#pragma unroll
            for (int i = 0; i < N; ++i) {
                a[i] = a[i] * a_gain + a_off;
                b[i] = complement_weight * (1 - a[i]);
            }
        }
        if (class_weight != nullptr) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const C w = class_weight[column + i];
                a[i] *= w;
                b[i] *= w;
            }
        }
    }

    __device__ bool needs_logit_sums() const { return !UNIFORM_CLASSES || a_off != 0; }

    template <int N, class Targets>
    __device__ void add_logits(const C (&z)[N], int column, int k, const Targets& targets, const RowState<C>& state,
                               LogitSums& sums) const {
        if constexpr (UNIFORM_CLASSES) {
#pragma unroll
            for (int i = 0; i < N; ++i)
                if (column + i != k) sums.gap_sum += state.first - z[i];
        } else {
            C a[N], b[N];
            weights(column, targets, a, b);
#pragma unroll
            for (int i = 0; i < N; ++i)
                if (column + i != k) {
                    sums.a_others += a[i];
                    sums.gap_sum += zero_safe_product(a[i], state.first - z[i]);
                }
        }
    }

    __device__ void set_argmax(int k) {
        label_is_argmax = target == k;
        if constexpr (!UNIFORM_CLASSES) {
            C a[1] = {0}, b[1] = {0};
            if (unsigned(k) < unsigned(length)) {
                if constexpr (INDEXED) weights(k, NoTargets(), a, b);
                else weights(k, GlobalTargets<T>{y + row * length}, a, b);
            }
            a_k = a[0];
            b_k = b[0];
        }
    }

    // Adds neighbours to each other first: adding equal odds one by one to a long sum errs in one direction.
    template <int N, class Targets>
    __device__ void add_odds(const C (&odds)[N], int column, const Targets& targets, OddsSums& sums) const {
        if constexpr (UNIFORM_CLASSES) {
            C sum = 0;
#pragma unroll
            for (int i = 0; i < N; ++i) {
                sum += odds[i];
                sums.product = fma(sums.product, odds[i], sums.product + odds[i]);
            }
            sums.odds += sum;
        } else {
            C a[N], b[N], sum = 0;
            weights(column, targets, a, b);
#pragma unroll
            for (int i = 0; i < N; ++i) {
                sum += b[i] * odds[i];
                sums.log1p_odds += b[i] * log1p(odds[i]);
            }
            sums.odds += sum;
        }
    }

    __device__ void finish_row(const RowState<C>& state, const LogitSums& sums, const OddsSums& odds_sums, bool is_writer) {
        C gap_sum, a_others, r = 0, complement = 0, e_label = 0, odds_label = 0;
        if constexpr (UNIFORM_CLASSES) {
            a_k = label_is_argmax ? a_off + a_gain : a_off;
            b_k = label_is_argmax ? b_on : b_off;
            a_others = label_is_argmax ? a_off * (length - 1) : a_off * (length - 1) + a_gain;
            if (active && !label_is_argmax) e_label = exp_of<S>(label_logit - state.second);
            gap_sum = zero_safe_product(a_gain, state.first - label_logit) + a_off * sums.gap_sum;
            if constexpr (COMPLEMENT) {
                // Every class but k was summed with b_off; at the label, B is less by this excess.
                const C excess = label_is_argmax ? C(0) : b_off - b_on;
                odds_label = state.odds(e_label);
                r = b_off * odds_sums.odds - excess * odds_label;
                complement = b_off * log1p(odds_sums.product) - excess * log1p(odds_label);
            }
        } else {
            a_others = sums.a_others;
            gap_sum = state.empty ? zero_safe_product(a_k, infinity<C>()) + sums.gap_sum : sums.gap_sum;
            if constexpr (COMPLEMENT) {
                r = odds_sums.odds;
                complement = odds_sums.log1p_odds;
            }
        }
        factor = row_factor();
        inactive_value = ignored ? C(0) : not_a_number<C>();
        const C a = a_k + a_others;
        C cost = a * state.log1p_q + gap_sum + complement;
        if constexpr (COMPLEMENT) cost -= zero_safe_product(b_k, state.log1m_p_k());
        if (is_writer) loss[row] = active ? cost * factor : inactive_value;

        // A masked class has gradient 0 even if it has a target; the loss is not finite then.
        has_masked_target = active && !(fabs(gap_sum) < infinity<C>() && state.sum_exp == state.sum_exp);
        e_factor = active ? factor * ((state.c_k * (a - r) - b_k * state.p_k) / state.sum_exp) : C(0);
        odds_factor = active ? factor * b_off : C(0);
        offset = active ? factor * a_off : -inactive_value;
        grad_at_argmax = factor * (state.p_k * (a_others - r + b_k) - a_k * state.c_k);
        if constexpr (UNIFORM_CLASSES) {
            grad_at_label = fma(e_label, e_factor, factor * (b_on * odds_label - (a_off + a_gain)));
            if (label_logit == -infinity<C>()) grad_at_label = 0;
            if (label_is_argmax) grad_at_label = grad_at_argmax;
        }
    }

    __device__ bool zeroes_masked() const { return has_masked_target; }

    template <int N, class Targets>
    __device__ void compute_outputs(C (&e)[N], const C (&odds)[N], int column, const Targets& targets,
                                    const RowState<C>&) const {
        if constexpr (UNIFORM_CLASSES) {
#pragma unroll
            for (int i = 0; i < N; ++i)
                e[i] = fma(e[i], e_factor, COMPLEMENT ? fma(odds[i], odds_factor, -offset) : -offset);
        } else {
            C a[N], b[N];
            weights(column, targets, a, b);
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const C rest = COMPLEMENT ? fma(b[i], odds[i], -a[i]) : -a[i];
                e[i] = active ? fma(e[i], e_factor, factor * rest) : inactive_value;
            }
        }
    }

    __device__ C output_at_argmax(const RowState<C>&) const { return grad_at_argmax; }

    __device__ C output_at_label() const { return grad_at_label; }
};

#define PARAMETERS                                                                                                          \
    const S *z, const T *y, Compute<S>*loss, S *dz, const Compute<S>*class_weight, const Compute<S>*row_scale, Index n,       \
        int m, Index ignore_index, int has_ignore_index, Compute<S> scale, Compute<S> a_off, Compute<S> a_gain,               \
        Compute<S> b_off, Compute<S> b_on, Compute<S> complement_weight
#define OPERATION CrossEntropy<S, T, WEIGHTED, COMPLEMENT>
#define ARGUMENTS                                                                                                           \
    {y, loss, class_weight, row_scale, ignore_index, has_ignore_index, scale, a_off, a_gain, b_off, b_on, complement_weight}

template <class S, class T, bool WEIGHTED, bool COMPLEMENT, int M, int WARPS>
__global__ void __launch_bounds__(WARPS * 32, (min_blocks_thread_per_row<OPERATION, M, WARPS * 32>()))
    softmax_cross_entropy_thread_per_row(PARAMETERS) {
    thread_per_row<OPERATION, M, WARPS>(ARGUMENTS, z, dz, n);
}

template <class S, class T, bool WEIGHTED, bool COMPLEMENT, int ROW_THREADS, int VECTORS>
__global__ void __launch_bounds__(block_threads(ROW_THREADS), (min_blocks_in_registers<OPERATION, ROW_THREADS, VECTORS>()))
    softmax_cross_entropy_in_registers(PARAMETERS) {
    row_in_registers<OPERATION, ROW_THREADS, VECTORS, 1>(ARGUMENTS, z, dz, n, m);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
template <class S, class T, bool WEIGHTED, bool COMPLEMENT, int ROW_THREADS, int VECTORS, int CLUSTER_BLOCKS>
__global__ void __cluster_dims__(CLUSTER_BLOCKS, 1, 1)
    __launch_bounds__(ROW_THREADS, (min_blocks_in_registers<OPERATION, ROW_THREADS, VECTORS>()))
    softmax_cross_entropy_in_cluster(PARAMETERS) {
    row_in_registers<OPERATION, ROW_THREADS, VECTORS, CLUSTER_BLOCKS>(ARGUMENTS, z, dz, n, m);
}
#endif

template <class S, class T, bool WEIGHTED, bool COMPLEMENT, int ROW_THREADS>
__global__ void __launch_bounds__(ROW_THREADS, 1)
    softmax_cross_entropy_multi_pass(PARAMETERS, int cached_vectors) {
    multi_pass_row<OPERATION, ROW_THREADS>(ARGUMENTS, z, dz, m, cached_vectors);
}
