// soft, ln soft, ln(1 - soft) and soft with one class left out (seed, section 1), each in one launch.
//
// - The row state and the ways through a row are those of the loss: one read, one write where a row fits on the chip.
// - Never forms 1 - p; out may be z.
#include "row_strategies.cuh"

struct NoSums {
    int nothing;
    __device__ void merge(const NoSums&) {}
};

// What the four have in common: they need no sums but the row state.
template <class S> struct OfRowState {
    typedef S Storage;
    typedef Compute<S> Value;
    typedef Value C;
    typedef NoSums Sums;
    typedef NoSums Gathered;
    static constexpr bool EQUAL = true, KEEPS_LOGITS = false, GATHERS = false;

    int label;

    __device__ bool start(Index, int, bool there) {
        label = NO_COLUMN;
        return there;
    }
    __device__ void heard(C) {}
    __device__ NoTargets targets(Index, int) const { return {}; }
    template <int M, int WARPS> __device__ NoTargets staged_targets(Index, int, int, int) const { return {}; }
    __device__ bool weighs() const { return false; }
    template <int N> __device__ void weigh(const C (&)[N], int, int, NoTargets, const Row<C>&, NoSums&) const {}
    __device__ void settle(const Row<C>&, int) {}
    template <int N> __device__ void gather(const C (&)[N], int, NoTargets, NoSums&) const {}
    __device__ void finish(const Row<C>&, const NoSums&, const NoSums&, bool) {}
    __device__ bool hides() const { return false; }
    __device__ C at_label(const Row<C>&) const { return 0; }
};

// p_j = e_j c_k / E
template <class S> struct Softmax : OfRowState<S> {
    typedef Compute<S> C;
    C scale;

    __device__ Softmax(const Index*) {}
    __device__ void finish(const Row<C>& state, const NoSums&, const NoSums&, bool) { scale = state.c_k / state.mass; }
    template <int N> __device__ void output(C (&e)[N], const C (&)[N], int, NoTargets, const Row<C>&) const {
#pragma unroll
        for (int i = 0; i < N; ++i) e[i] *= scale;
    }
    __device__ C at_k(const Row<C>& state) const { return state.p_k; }
};

// ln p_j = (z_j - M₁) - log1p(q)
template <class S> struct LogSoftmax : OfRowState<S> {
    typedef Compute<S> C;
    static constexpr bool KEEPS_LOGITS = true;

    __device__ LogSoftmax(const Index*) {}
    template <int N> __device__ void output(C (&z)[N], const C (&)[N], int, NoTargets, const Row<C>& state) const {
#pragma unroll
        for (int i = 0; i < N; ++i) z[i] = z[i] - state.first - state.log1p_q;
    }
    __device__ C at_k(const Row<C>& state) const { return state.empty ? -infinity<C>() : -state.log1p_q; }
};

// ln(1-p_j) = -log1p(o_j)
template <class S> struct Log1mSoftmax : OfRowState<S> {
    typedef Compute<S> C;

    __device__ Log1mSoftmax(const Index*) {}
    template <int N> __device__ void output(C (&e)[N], const C (&)[N], int, NoTargets, const Row<C>& state) const {
#pragma unroll
        for (int i = 0; i < N; ++i) e[i] = -log1p(state.odds(e[i]));
    }
    __device__ C at_k(const Row<C>& state) const { return state.log1m_p_k(); }
};

// soft(z_{≠t}, j): s_j where t is the maximum, else p_j/(1-p_t) = p_j (1+o_t); 0 at t.
template <class S> struct AllButOneSoftmax : OfRowState<S> {
    typedef Compute<S> C;
    const Index* t;
    bool out_of_range, hit;
    C z_label, on_e, value_k;

    __device__ AllButOneSoftmax(const Index* t) : t(t) {}
    __device__ bool start(Index row, int m, bool there) {
        const Index named = t[row];
        out_of_range = named < 0 || named >= m;
        const bool live = there && !out_of_range;
        this->label = live ? int(named) : NO_COLUMN;
        return live;
    }
    __device__ void heard(C z) { z_label = z; }
    __device__ void settle(const Row<C>&, int k) { hit = this->label == k; }
    __device__ void finish(const Row<C>& state, const NoSums&, const NoSums&, bool) {
        const C inverse = 1 + (hit || out_of_range ? C(0) : state.odds(exp_of<S>(z_label - state.second)));
        // A row with NaN or +inf is NaN also where that is the class left out.
        const bool broken = out_of_range || state.q != state.q;
        on_e = broken ? not_a_number<C>() : (hit ? C(1) : state.c_k * inverse) / state.mass;
        value_k = state.p_k * inverse;
    }
    template <int N> __device__ void output(C (&e)[N], const C (&)[N], int, NoTargets, const Row<C>&) const {
#pragma unroll
        for (int i = 0; i < N; ++i) e[i] *= on_e;
    }
    __device__ C at_k(const Row<C>&) const { return value_k; }
};

// t is read by AllButOneSoftmax alone.
#define PARAMETERS const S *z, S *out, const Index *t, Index n, int m

template <template <class> class Op, class S, int M, int WARPS>
__global__ void __launch_bounds__(WARPS * 32, (blocks_of_lanes<Op<S>, M, WARPS * 32>())) softmax_thread_per_row(PARAMETERS) {
    rows_of_lanes<Op<S>, M, WARPS>(Op<S>(t), z, out, n);
}

template <template <class> class Op, class S, int LANES, int PACKS>
__global__ void __launch_bounds__(threads_for(LANES), (blocks_in_registers<Op<S>, LANES, PACKS>())) softmax_in_registers(PARAMETERS) {
    row_in_registers<Op<S>, LANES, PACKS, 1>(Op<S>(t), z, out, n, m);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
template <template <class> class Op, class S, int LANES, int PACKS, int BLOCKS>
__global__ void __cluster_dims__(BLOCKS, 1, 1) __launch_bounds__(LANES, (blocks_in_registers<Op<S>, LANES, PACKS>())) softmax_in_cluster(PARAMETERS) {
    row_in_registers<Op<S>, LANES, PACKS, BLOCKS>(Op<S>(t), z, out, n, m);
}
#endif

template <template <class> class Op, class S, int LANES>
__global__ void __launch_bounds__(LANES, 1) softmax_multi_pass(PARAMETERS, int room) {
    row_in_passes<Op<S>, LANES>(Op<S>(t), z, out, m, room);
}
