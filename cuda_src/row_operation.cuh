// What a row operation supplies, and the steps that take a row from logits in registers to outputs.
//
// A row operation is a struct Op that every thread of a row holds a copy of. The drivers in row_strategies.cuh load the
// row, reduce it and store the outputs; Op supplies the formulas. Its members, in the order in which a driver uses
// them, with o_j the odds and e_j the shifted exponentials of row_state.cuh:
//
//   Storage                      type of the logits and outputs in memory
//   UNIFORM_CLASSES              whether all classes except the argmax and the label share one formula
//   OUTPUTS_FROM_LOGITS          whether compute_outputs() takes z_j; else it takes e_j
//   NEEDS_ODDS                   whether there are sums over o_j before the outputs, and compute_outputs() takes o_j
//   bool begin_row(row, m, in_range)
//                                before the row is loaded. False: the row is not read, and finish_row() sets its outputs
//   label, label_logit           a class whose output has a formula of its own, or NO_COLUMN, set by begin_row(); and its
//                                logit, which the driver sets
//   targets(row, m)              reader of the row's targets in global memory; NoTargets where there are none
//   stage_targets<…>(…)          the same where a warp copies the targets of 32 rows to shared memory first
//   needs_logit_sums()           whether add_logits() is to be called
//   LogitSums, add_logits()      sums over the logits except the argmax; called once M₁ and M₂ are known
//   set_argmax(k)                called once the column of the maximum is known
//   OddsSums, add_odds()         sums over the odds except the argmax; only with NEEDS_ODDS
//   finish_row()                 called once all sums are known: sets the factors of the outputs, and the thread with
//                                is_writer stores what there is one of a row
//   compute_outputs()            N neighbouring outputs, in place of z_j or e_j
//   zeroes_masked()              whether outputs of classes with logit -inf must be set to 0
//   output_at_argmax(state)      the output at the argmax, stored over that of compute_outputs()
//   output_at_label()            the same at the label
#pragma once

#include "row_state.cuh"
#include "row_group.cuh"
#include "row_memory.cuh"

template <class C, int N> __device__ constexpr int count_of(const C (&)[N]) { return N; }

// N neighbouring values of a row, and their odds where there is room for them.
template <class C, int N, bool KEEPS_ODDS> struct Fragment {
    C value[N];
    C odds[KEEPS_ODDS ? N : 1];
};

// Beyond 64 bytes of values the odds are computed again for the outputs: kept in registers, they would halve the number of
// rows in flight.
template <class Op> __device__ constexpr bool keeps_odds(int values) {
    return Op::NEEDS_ODDS && values * sizeof(Compute<typename Op::Storage>) <= 64;
}

// A thread's part of a row in registers: vectors, and at most one element of the head and one of the tail. The first
// threads have the head and the last ones the tail, so that one register does for both where there are threads enough.
template <class Op, int VECTORS, int ROW_THREADS> struct RegisterRow {
    typedef typename Op::Storage S;
    typedef Compute<S> C;
    static constexpr int WIDTH = VECTOR_WIDTH<S>, EDGES = ROW_THREADS >= 2 * WIDTH ? 1 : 2;
    static constexpr bool KEEPS_ODDS = keeps_odds<Op>(VECTORS * WIDTH);
    static_assert(ROW_THREADS >= WIDTH, "the head of a row has a thread for each of its elements");

    const RowLayout<S> layout;
    const int rank, tail_column;  // the column that this thread has in the tail, if any
    Fragment<C, WIDTH, KEEPS_ODDS> fragments[VECTORS];
    Fragment<C, 1, KEEPS_ODDS> edges[EDGES];

    // Issues all loads before the first value is used.
    __device__ RegisterRow(const S* z, int m, int rank, bool active)
        : layout(z, m), rank(rank), tail_column(m - ROW_THREADS + rank) {
        Vector<S, WIDTH> raw[VECTORS];
        S single[EDGES];
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            memset(raw + v, 0, sizeof(raw[v]));
            if (active && v * ROW_THREADS + rank < layout.vectors) raw[v] = load_streaming<S, WIDTH>(z + column(v));
        }
        memset(single, 0, sizeof(single));
        if (active && in_head()) single[0] = z[rank];
        if (active && in_tail()) single[EDGES - 1] = z[tail_column];
#pragma unroll
        for (int i = 0; i < EDGES; ++i) edges[i].value[0] = C(single[i]);
#pragma unroll
        for (int v = 0; v < VECTORS; ++v)
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) fragments[v].value[i] = C(raw[v].at[i]);
    }

    __device__ int column(int v) const { return layout.head + (v * ROW_THREADS + rank) * WIDTH; }
    __device__ bool in_head() const { return rank < layout.head; }
    __device__ bool in_tail() const { return rank >= ROW_THREADS - layout.tail; }

    // Whether this thread holds the element of that column.
    __device__ bool holds(int wanted) const {
        const int past_head = wanted - layout.head;
        if (past_head < 0) return wanted == rank;
        return past_head < layout.vectors * WIDTH ? past_head / WIDTH % ROW_THREADS == rank : wanted == tail_column;
    }

    // Calls body(fragment, its first column) for each fragment of the row that this thread has.
    template <class Body> __device__ void for_each(Body body) {
#pragma unroll
        for (int v = 0; v < VECTORS; ++v)
            if (v * ROW_THREADS + rank < layout.vectors) body(fragments[v], column(v));
        if constexpr (EDGES == 1) {
            if (in_head() || in_tail()) body(edges[0], in_head() ? rank : tail_column);
        } else {
            if (in_head()) body(edges[0], rank);
            if (in_tail()) body(edges[1], tail_column);
        }
    }
};

// A whole row in one thread.
template <class Op, int M> struct ThreadRow {
    Fragment<Compute<typename Op::Storage>, M, keeps_odds<Op>(M)> fragment;

    template <class Body> __device__ void for_each(Body body) { body(fragment, 0); }
};

template <class First, class Second> struct Pair {
    First first;
    Second second;
    __device__ void merge(const Pair& other) {
        first.merge(other.first);
        second.merge(other.second);
    }
};

template <class C, class LogitSums> struct RowSums {
    C sum_exp;
    MinColumn k;
    LogitSums logits;
    __device__ void merge(const RowSums& other) {
        sum_exp += other.sum_exp;
        k.merge(other.k);
        logits.merge(other.logits);
    }
};

// Returns Σ e_j of neighbouring logits, with the maximum as -inf; each z_j becomes e_j unless the outputs take logits.
template <class Op, class C, int N> __device__ C exp_in_place(C (&values)[N], C shift) {
    C even = 0, odd = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const C e = exp_of<typename Op::Storage>(values[i] - shift);
        if (!Op::OUTPUTS_FROM_LOGITS) values[i] = e;
        if (i % 2) odd += e;
        else even += e;
    }
    return even + odd;
}

template <class C, int N> __device__ void compute_odds(const RowState<C>& state, const C (&e)[N], C (&odds)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) odds[i] = state.odds(e[i]);
}

// Sets the value of `column` to -inf, where it is among these.
template <class C, int N> __device__ void mask_column(C (&values)[N], int first, int column) {
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (first + i == column) values[i] = -infinity<C>();
}

// Adds the odds of a fragment to the operation's sums, and keeps them where there is room.
template <class Op, class C, int N, bool KEEPS_ODDS, class Targets>
__device__ void sum_odds(const Op& op, const RowState<C>& state, Fragment<C, N, KEEPS_ODDS>& fragment, int column,
                         const Targets& targets, typename Op::OddsSums& sums) {
    C odds[N];
    compute_odds(state, fragment.value, odds);
    op.add_odds(odds, column, targets, sums);
    if constexpr (KEEPS_ODDS) memcpy(fragment.odds, odds, sizeof(odds));
}

// Reduces the logits that a group holds to the row state and the operation's sums, up to and including finish_row().
// Returns the column of the maximum to the thread that holds it, and NO_COLUMN to the others.
template <class Op, class Group, class Values, class Targets>
__device__ int reduce_row(Op& op, const Group& group, Values& values, RowState<Compute<typename Op::Storage>>& state,
                          const Targets& targets, bool is_writer) {
    typedef Compute<typename Op::Storage> C;
    TopTwo<C> mine = TopTwo<C>::none();
    values.for_each([&](auto& fragment, int) {
#pragma unroll
        for (int i = 0; i < count_of(fragment.value); ++i) mine.add(fragment.value[i]);
    });
    group.wait_for_cluster();
    const TopTwo<C> all = group.template reduce<0>(mine);

    // The thread that has the maximum finds its column, and masks it: it counts into no sum.
    int own_argmax = NO_COLUMN;
    if (mine.first == all.first)
        values.for_each([&](auto& fragment, int column) {
#pragma unroll
            for (int i = 0; i < count_of(fragment.value); ++i)
                if (fragment.value[i] == all.first) own_argmax = min(own_argmax, column + i);
        });
    if (group.any_in_warp(all.first == all.second)) {
        const MinColumn k = group.template reduce<1>(MinColumn{own_argmax});
        if (own_argmax != k.column) own_argmax = NO_COLUMN;
    }
    if (own_argmax != NO_COLUMN)
        values.for_each([&](auto& fragment, int column) { mask_column(fragment.value, column, own_argmax); });

    state.set_maxima(all.first, all.second);
    RowSums<C, typename Op::LogitSums> sums = {C(0), {own_argmax}, {}};
    values.for_each([&](auto& fragment, int column) {
        if (op.needs_logit_sums()) op.add_logits(fragment.value, column, own_argmax, targets, state, sums.logits);
        sums.sum_exp += exp_in_place<Op>(fragment.value, state.second);
    });
    sums = group.template reduce<2>(sums);
    state.set_sum_exp(sums.sum_exp);
    op.set_argmax(sums.k.column);

    typename Op::OddsSums odds_sums = {};
    if constexpr (Op::NEEDS_ODDS) {
        values.for_each([&](auto& fragment, int column) { sum_odds(op, state, fragment, column, targets, odds_sums); });
        odds_sums = group.template reduce<3>(odds_sums);
    }
    state.set_probabilities();
    op.finish_row(state, sums.logits, odds_sums, is_writer);
    return own_argmax;
}

// The outputs in place of a fragment's values.
template <class Op, class C, int N, bool KEEPS_ODDS, class Targets>
__device__ void compute_outputs(const Op& op, const RowState<C>& state, Fragment<C, N, KEEPS_ODDS>& fragment, int column,
                                const Targets& targets) {
    C odds[N];
    if constexpr (KEEPS_ODDS) memcpy(odds, fragment.odds, sizeof(odds));
    else if constexpr (Op::NEEDS_ODDS) compute_odds(state, fragment.value, odds);
    op.compute_outputs(fragment.value, odds, column, targets, state);
}

// Stores neighbouring outputs. To zero masked classes it reads their logits again, which no other thread has overwritten.
template <class Op, class C, int N>
__device__ void store_outputs(const Op& op, C (&values)[N], const typename Op::Storage* z, typename Op::Storage* out,
                              bool aligned) {
    typedef typename Op::Storage S;
    if (op.zeroes_masked()) {
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (C(z[i]) == -infinity<C>()) values[i] = 0;
    }
    const Vector<S, N> vector = round_to_storage<S, N>(values);
    if (N > 1 && aligned) {
        store_streaming(out, vector);
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) out[i] = vector.at[i];
    }
}
