// soft, ln soft, ln(1 - soft) and soft with one class left out, each in one launch. README.md derives the formulas.
//
// - The row state and the drivers are those of the loss: one read and one write where a row fits on the chip.
// - Nothing computes 1 - p; out may be z.
// - Each operation below is a row operation, as row_operation.cuh lists its members.
#include "row_strategies.cuh"

struct NoSums {
    int nothing;
    __device__ void merge(const NoSums&) {}
};

// Members that the four share: they need no sums besides the row state.
template <class S> struct RowStateOperation {
    typedef S Storage;
    typedef Compute<S> C;
    typedef NoSums LogitSums;
    typedef NoSums OddsSums;
    static constexpr bool UNIFORM_CLASSES = true, OUTPUTS_FROM_LOGITS = false, NEEDS_ODDS = false;

    int label;
    C label_logit;

    __device__ bool begin_row(Index, int, bool in_range) {
        label = NO_COLUMN;
        return in_range;
    }
    __device__ NoTargets targets(Index, int) const { return {}; }
    template <int M, int WARPS> __device__ NoTargets stage_targets(Index, int, int, int) const { return {}; }
    __device__ bool needs_logit_sums() const { return false; }
    template <int N> __device__ void add_logits(const C (&)[N], int, int, NoTargets, const RowState<C>&, NoSums&) const {}
    __device__ void set_argmax(int) {}
    __device__ void finish_row(const RowState<C>&, const NoSums&, const NoSums&, bool) {}
    __device__ bool zeroes_masked() const { return false; }
    __device__ C output_at_label() const { return 0; }
};

// p_j = e_j c_k / E
template <class S> struct Softmax : RowStateOperation<S> {
    typedef Compute<S> C;
    C scale;

    __device__ Softmax(const Index*) {}
    __device__ void finish_row(const RowState<C>& state, const NoSums&, const NoSums&, bool) {
        scale = state.c_k / state.sum_exp;
    }
    template <int N> __device__ void compute_outputs(C (&e)[N], const C (&)[N], int, NoTargets, const RowState<C>&) const {
#pragma unroll
        for (int i = 0; i < N; ++i) e[i] *= scale;
    }
    __device__ C output_at_argmax(const RowState<C>& state) const { return state.p_k; }
};

// ln p_j = (z_j - M₁) - log1p(q)
template <class S> struct LogSoftmax : RowStateOperation<S> {
    typedef Compute<S> C;
    static constexpr bool OUTPUTS_FROM_LOGITS = true;

    __device__ LogSoftmax(const Index*) {}
    template <int N>
    __device__ void compute_outputs(C (&z)[N], const C (&)[N], int, NoTargets, const RowState<C>& state) const {
#pragma unroll
        for (int i = 0; i < N; ++i) z[i] = z[i] - state.first - state.log1p_q;
    }
    __device__ C output_at_argmax(const RowState<C>& state) const { return state.empty ? -infinity<C>() : -state.log1p_q; }
};

// ln(1-p_j) = -log1p(o_j)
template <class S> struct Log1mSoftmax : RowStateOperation<S> {
    typedef Compute<S> C;

    __device__ Log1mSoftmax(const Index*) {}
    template <int N>
    __device__ void compute_outputs(C (&e)[N], const C (&)[N], int, NoTargets, const RowState<C>& state) const {
#pragma unroll
        for (int i = 0; i < N; ++i) e[i] = -log1p(state.odds(e[i]));
    }
    __device__ C output_at_argmax(const RowState<C>& state) const { return state.log1m_p_k(); }
};

// soft(z_{≠t}, j): s_j where t is the argmax, else p_j/(1-p_t) = p_j (1+o_t); 0 at t. The label of the row is t.
template <class S> struct AllButOneSoftmax : RowStateOperation<S> {
    typedef Compute<S> C;
    const Index* t;
    bool out_of_range, t_is_argmax;
    C e_factor, value_at_argmax;

    __device__ AllButOneSoftmax(const Index* t) : t(t) {}
    __device__ bool begin_row(Index row, int m, bool in_range) {
        const Index given = t[row];
        out_of_range = given < 0 || given >= m;
        const bool active = in_range && !out_of_range;
        this->label = active ? int(given) : NO_COLUMN;
        return active;
    }
    __device__ void set_argmax(int k) { t_is_argmax = this->label == k; }
    __device__ void finish_row(const RowState<C>& state, const NoSums&, const NoSums&, bool) {
        const C odds_t = t_is_argmax || out_of_range ? C(0) : state.odds(exp_of<S>(this->label_logit - state.second));
        const C inverse = 1 + odds_t;  // 1/(1-p_t)
        // A row with NaN or +inf is NaN also where that is the class left out.
        const bool is_nan = out_of_range || state.q != state.q;
        e_factor = is_nan ? not_a_number<C>() : (t_is_argmax ? C(1) : state.c_k * inverse) / state.sum_exp;
        value_at_argmax = state.p_k * inverse;
    }
    template <int N> __device__ void compute_outputs(C (&e)[N], const C (&)[N], int, NoTargets, const RowState<C>&) const {
#pragma unroll
        for (int i = 0; i < N; ++i) e[i] *= e_factor;
    }
    __device__ C output_at_argmax(const RowState<C>&) const { return value_at_argmax; }
};

// Only AllButOneSoftmax reads t.
#define PARAMETERS const S *z, S *out, const Index *t, Index n, int m

template <template <class> class Op, class S, int M, int WARPS>
__global__ void __launch_bounds__(WARPS * 32, (min_blocks_thread_per_row<Op<S>, M, WARPS * 32>()))
    softmax_thread_per_row(PARAMETERS) {
    thread_per_row<Op<S>, M, WARPS>(Op<S>(t), z, out, n);
}

template <template <class> class Op, class S, int ROW_THREADS, int VECTORS>
__global__ void __launch_bounds__(block_threads(ROW_THREADS), (min_blocks_in_registers<Op<S>, ROW_THREADS, VECTORS>()))
    softmax_in_registers(PARAMETERS) {
    row_in_registers<Op<S>, ROW_THREADS, VECTORS, 1>(Op<S>(t), z, out, n, m);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
template <template <class> class Op, class S, int ROW_THREADS, int VECTORS, int CLUSTER_BLOCKS>
__global__ void __cluster_dims__(CLUSTER_BLOCKS, 1, 1)
    __launch_bounds__(ROW_THREADS, (min_blocks_in_registers<Op<S>, ROW_THREADS, VECTORS>()))
    softmax_in_cluster(PARAMETERS) {
    row_in_registers<Op<S>, ROW_THREADS, VECTORS, CLUSTER_BLOCKS>(Op<S>(t), z, out, n, m);
}
#endif

template <template <class> class Op, class S, int ROW_THREADS>
__global__ void __launch_bounds__(ROW_THREADS, 1)
    softmax_multi_pass(PARAMETERS, int cached_vectors) {
    multi_pass_row<Op<S>, ROW_THREADS>(Op<S>(t), z, out, m, cached_vectors);
}
