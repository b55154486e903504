// Loss and gradient of the softmax cross entropy with its all-but-one terms, in one launch.
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
// - Class indices are never expanded: all classes count as wrong ones, and two scalars put the label right.
// - Never stores p, and never forms 1 - p.
#include "row_strategies.cuh"

template <class T> struct IsIndex { static constexpr bool value = false; };
template <> struct IsIndex<int> { static constexpr bool value = true; };
template <> struct IsIndex<Index> { static constexpr bool value = true; };

template <class C> struct Sum {
    C value;
    __device__ void merge(const Sum& other) { value += other.value; }
};

// Σ A_t (M₁-z_t) and Σ_{t≠k} A_t.
template <class C> struct WeighedSums {
    C depth, a_rest;
    __device__ void merge(const WeighedSums& other) {
        depth += other.depth;
        a_rest += other.a_rest;
    }
};

// Σ_{t≠k} B_t o_t and Σ_{t≠k} B_t log1p(o_t).
template <class C> struct WeighedOdds {
    C odds, log1p_odds;
    __device__ void merge(const WeighedOdds& other) {
        odds += other.odds;
        log1p_odds += other.log1p_odds;
    }
};

// Σ o_t, and Π (1+o_t) - 1: its terms are positive, it stays below 3, and one log1p of it is the sum of all log1p(o_t).
template <class C> struct EqualOdds {
    C odds, product;
    __device__ void merge(const EqualOdds& other) {
        odds += other.odds;
        product = fma(product, other.product, product + other.product);
    }
};

template <class A, class B, bool FIRST> struct Either { typedef A type; };
template <class A, class B> struct Either<A, B, false> { typedef B type; };

// S: logits. T: class indices (int, long long) or targets. WEIGHTED: classes have weights. COMPLEMENT: λ ≠ 0.
template <class S, class T, bool WEIGHTED, bool COMPLEMENT> struct CrossEntropy {
    typedef S Storage;
    typedef Compute<S> Value;
    typedef Value C;
    static constexpr bool INDEXED = IsIndex<T>::value, EQUAL = INDEXED && !WEIGHTED, KEEPS_LOGITS = false, GATHERS = COMPLEMENT;
    typedef typename Either<Sum<C>, WeighedSums<C>, EQUAL>::type Sums;
    typedef typename Either<EqualOdds<C>, WeighedOdds<C>, EQUAL>::type Gathered;

    const T* y;
    C* loss;
    const C* class_weight;
    const C* row_scale;
    Index ignore_index;
    int ignores;
    C scale;
    // Of a class with w = 1, smoothed: A at a wrong class and what the label has more, and λ of 1 - y at both.
    C cold_a, gain, cold_b, hot_b, complement_weight;

    // Of the row.
    Index row;
    int length, label, target;
    bool live, dead, hit, masked;
    C z_label, a_k, b_k;
    C factor, dead_value;
    C on_e, on_odds, offset, value_k, value_label;

    // label: where the output is not of the others' form; target: the class that y names.
    __device__ bool start(Index the_row, int m, bool there) {
        row = the_row;
        length = m;
        label = target = NO_COLUMN;
        dead = row_factor() == 0;
        bool wrong = false;
        if constexpr (INDEXED) {
            const T named = y[row];
            dead = dead || (ignores && Index(named) == ignore_index);
            wrong = named < 0 || Index(named) >= m;
            if (!dead && !wrong) target = int(named);
            if (EQUAL && there) label = target;
        }
        live = there && !dead && !wrong;
        return live;
    }

    __device__ C row_factor() const { return row_scale == nullptr ? scale : scale * row_scale[row]; }

    __device__ void heard(C z) { z_label = z; }

    __device__ auto targets(Index row, int m) const {
        if constexpr (INDEXED) return NoTargets();
        else return GlobalTargets<T>{y + row * m};
    }

    template <int M, int WARPS> __device__ auto staged_targets(Index first, int elements, int lane, int warp) const {
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
    template <int N, class Targets> __device__ void weights(int column, const Targets& targets, C (&a)[N], C (&b)[N]) const {
        if constexpr (INDEXED) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const bool hot = column + i == target;
                a[i] = hot ? cold_a + gain : cold_a;
                b[i] = hot ? hot_b : cold_b;
            }
        } else {
            targets.read(column, a);
#pragma unroll
            for (int i = 0; i < N; ++i) {
                a[i] = a[i] * gain + cold_a;
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

    __device__ bool weighs() const { return !EQUAL || cold_a != 0; }

    template <int N, class Targets>
    __device__ void weigh(const C (&z)[N], int column, int k, const Targets& targets, const Row<C>& state, Sums& sums) const {
        if constexpr (EQUAL) {
#pragma unroll
            for (int i = 0; i < N; ++i)
                if (column + i != k) sums.value += state.first - z[i];
        } else {
            C a[N], b[N];
            weights(column, targets, a, b);
#pragma unroll
            for (int i = 0; i < N; ++i)
                if (column + i != k) {
                    sums.a_rest += a[i];
                    sums.depth += times(a[i], state.first - z[i]);
                }
        }
    }

    __device__ void settle(const Row<C>& state, int k) {
        hit = target == k;
        if constexpr (!EQUAL) {
            C a[1] = {0}, b[1] = {0};
            if (unsigned(k) < unsigned(length)) {
                if constexpr (INDEXED) weights(k, NoTargets(), a, b);
                else weights(k, GlobalTargets<T>{y + row * length}, a, b);
            }
            a_k = a[0];
            b_k = b[0];
        }
    }

    // Neighbours are added up first: of equal odds, a long sum one by one errs in one direction.
    template <int N, class Targets>
    __device__ void gather(const C (&odds)[N], int column, const Targets& targets, Gathered& sums) const {
        if constexpr (EQUAL) {
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

    __device__ void finish(const Row<C>& state, const Sums& sums, const Gathered& gathered, bool writes) {
        C depth, a_rest, r = 0, complement = 0, e_label = 0, odds_label = 0;
        if constexpr (EQUAL) {
            a_k = hit ? cold_a + gain : cold_a;
            b_k = hit ? hot_b : cold_b;
            a_rest = hit ? cold_a * (length - 1) : cold_a * (length - 1) + gain;
            if (live && !hit) e_label = exp_of<S>(z_label - state.second);
            depth = times(gain, state.first - z_label) + cold_a * sums.value;
            if constexpr (COMPLEMENT) {
                // At a wrong label B is less than at the other wrong classes, by λ times the gain.
                const C excess = hit ? C(0) : cold_b - hot_b;
                odds_label = state.odds(e_label);
                r = cold_b * gathered.odds - excess * odds_label;
                complement = cold_b * log1p(gathered.product) - excess * log1p(odds_label);
            }
        } else {
            a_rest = sums.a_rest;
            depth = state.empty ? times(a_k, infinity<C>()) + sums.depth : sums.depth;
            if constexpr (COMPLEMENT) {
                r = gathered.odds;
                complement = gathered.log1p_odds;
            }
        }
        factor = row_factor();
        dead_value = dead ? C(0) : not_a_number<C>();
        const C a = a_k + a_rest;
        C cost = a * state.log1p_q + depth + complement;
        if constexpr (COMPLEMENT) cost -= times(b_k, state.log1m_p_k());
        if (writes) loss[row] = live ? cost * factor : dead_value;

        // A masked class has no gradient, though it may have a target; then the loss is not finite.
        masked = live && !(fabs(depth) < infinity<C>() && state.mass == state.mass);
        on_e = live ? factor * ((state.c_k * (a - r) - b_k * state.p_k) / state.mass) : C(0);
        on_odds = live ? factor * cold_b : C(0);
        offset = live ? factor * cold_a : -dead_value;
        value_k = factor * (state.p_k * (a_rest - r + b_k) - a_k * state.c_k);
        if constexpr (EQUAL) {
            value_label = fma(e_label, on_e, factor * (hot_b * odds_label - (cold_a + gain)));
            if (z_label == -infinity<C>()) value_label = 0;
            if (hit) value_label = value_k;
        }
    }

    __device__ bool hides() const { return masked; }

    template <int N, class Targets>
    __device__ void output(C (&e)[N], const C (&odds)[N], int column, const Targets& targets, const Row<C>&) const {
        if constexpr (EQUAL) {
#pragma unroll
            for (int i = 0; i < N; ++i) e[i] = fma(e[i], on_e, COMPLEMENT ? fma(odds[i], on_odds, -offset) : -offset);
        } else {
            C a[N], b[N];
            weights(column, targets, a, b);
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const C rest = COMPLEMENT ? fma(b[i], odds[i], -a[i]) : -a[i];
                e[i] = live ? fma(e[i], on_e, factor * rest) : dead_value;
            }
        }
    }

    __device__ C at_k(const Row<C>&) const { return value_k; }

    __device__ C at_label(const Row<C>&) const { return value_label; }
};

#define PARAMETERS                                                                                                          \
    const S *z, const T *y, Compute<S>*loss, S *dz, const Compute<S>*class_weight, const Compute<S>*row_scale, Index n,       \
        int m, Index ignore_index, int ignores, Compute<S> scale, Compute<S> cold_a, Compute<S> gain, Compute<S> cold_b,      \
        Compute<S> hot_b, Compute<S> complement_weight
#define OPERATION CrossEntropy<S, T, WEIGHTED, COMPLEMENT>
#define ARGUMENTS                                                                                                           \
    {y, loss, class_weight, row_scale, ignore_index, ignores, scale, cold_a, gain, cold_b, hot_b, complement_weight}

template <class S, class T, bool WEIGHTED, bool COMPLEMENT, int M, int WARPS>
__global__ void __launch_bounds__(WARPS * 32, (blocks_of_lanes<OPERATION, M, WARPS * 32>())) softmax_cross_entropy_thread_per_row(PARAMETERS) {
    rows_of_lanes<OPERATION, M, WARPS>(ARGUMENTS, z, dz, n);
}

template <class S, class T, bool WEIGHTED, bool COMPLEMENT, int LANES, int PACKS>
__global__ void __launch_bounds__(threads_for(LANES), (blocks_in_registers<OPERATION, LANES, PACKS>())) softmax_cross_entropy_in_registers(PARAMETERS) {
    row_in_registers<OPERATION, LANES, PACKS, 1>(ARGUMENTS, z, dz, n, m);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
template <class S, class T, bool WEIGHTED, bool COMPLEMENT, int LANES, int PACKS, int BLOCKS>
__global__ void __cluster_dims__(BLOCKS, 1, 1) __launch_bounds__(LANES, (blocks_in_registers<OPERATION, LANES, PACKS>())) softmax_cross_entropy_in_cluster(PARAMETERS) {
    row_in_registers<OPERATION, LANES, PACKS, BLOCKS>(ARGUMENTS, z, dz, n, m);
}
#endif

template <class S, class T, bool WEIGHTED, bool COMPLEMENT, int LANES>
__global__ void __launch_bounds__(LANES, 1) softmax_cross_entropy_multi_pass(PARAMETERS, int room) {
    row_in_passes<OPERATION, LANES>(ARGUMENTS, z, dz, m, room);
}
