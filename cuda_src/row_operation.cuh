// From the logits of a row that a group of lanes holds in registers to the outputs of an operation.
//
// An operation Op is copied to every lane. It has, in the order in which they are used:
//
//   Storage, Target       the type of logits and outputs; that of an (n, m) array beside the logits, or void
//   EQUAL                 whether all classes but k and the label go by the same formula
//   KEEPS_LOGITS          whether outputs are made of z_j, not of e_j
//   GATHERS               whether it sums over o_j before its outputs, which then are made of them too
//   start(row, m, there)  whether the row is to be read; otherwise finish() arranges for outputs without it
//   label                 a column of its own, or NO_COLUMN; heard(z_label) is told its logit
//   Sums, weigh()         sums over the logits but z_k, which weighs() says it needs
//   settle()              the row state is known
//   Gathered, gather()    sums over the odds
//   finish()              all sums are known; writes what there is one of a row
//   output(e, o, …)       N neighbouring outputs; those at k and at the label are overwritten by at_k() and at_label()
//   hides()               whether outputs of masked classes must be set to 0
#pragma once

#include "row_state.cuh"
#include "row_group.cuh"
#include "row_memory.cuh"

template <class C, int N> __device__ constexpr int count_of(const C (&)[N]) { return N; }

// N neighbouring values of a row, and their odds where there is room for them.
template <class C, int N, bool HOLDS_ODDS> struct Part {
    C value[N];
    C odds[HOLDS_ODDS ? N : 1];
};

// Beyond 16 registers the odds are divided anew for the output; held, they would halve the rows in flight.
template <class Op> __device__ constexpr bool holds_odds(int values) { return Op::GATHERS && values * sizeof(typename Op::Value) <= 64; }

// A lane's share of a row in registers: packs, and at most one element of the head and one of the tail. The first lanes
// have the head and the last ones the tail, so that one place does for both where there are lanes enough.
template <class Op, int PACKS, int LANES> struct HeldRow {
    typedef typename Op::Storage S;
    typedef typename Op::Value C;
    static constexpr int WIDTH = PACK<S>, ENDS = LANES >= 2 * WIDTH ? 1 : 2;
    static constexpr bool HOLDS_ODDS = holds_odds<Op>(PACKS * WIDTH);
    static_assert(LANES >= WIDTH, "the head of a row has a lane for each of its elements");

    const Layout<S> layout;
    const int lane, past_tail;  // the column of this lane in the tail
    Part<C, WIDTH, HOLDS_ODDS> parts[PACKS];
    Part<C, 1, HOLDS_ODDS> ends[ENDS];

    // All loads are on their way before the first is used.
    __device__ HeldRow(const S* z, int m, int lane, bool live) : layout(z, m), lane(lane), past_tail(m - LANES + lane) {
        Pack<S, WIDTH> raw[PACKS];
        S single[ENDS];
#pragma unroll
        for (int v = 0; v < PACKS; ++v) {
            memset(raw + v, 0, sizeof(raw[v]));
            if (live && v * LANES + lane < layout.packs) raw[v] = load_once<S, WIDTH>(z + column(v));
        }
        memset(single, 0, sizeof(single));
        if (live && in_head()) single[0] = z[lane];
        if (live && in_tail()) single[ENDS - 1] = z[past_tail];
#pragma unroll
        for (int i = 0; i < ENDS; ++i) ends[i].value[0] = C(single[i]);
#pragma unroll
        for (int v = 0; v < PACKS; ++v)
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) parts[v].value[i] = C(raw[v].at[i]);
    }

    __device__ int column(int v) const { return layout.head + (v * LANES + lane) * WIDTH; }
    __device__ bool in_head() const { return lane < layout.head; }
    __device__ bool in_tail() const { return lane >= LANES - layout.tail; }

    __device__ bool holds(int wanted) const {
        const int past_head = wanted - layout.head;
        if (past_head < 0) return wanted == lane;
        return past_head < layout.packs * WIDTH ? past_head / WIDTH % LANES == lane : wanted == past_tail;
    }

    // Calls body(part, its first column) for each part that the row has in this lane.
    template <class Body> __device__ void for_each(Body body) {
#pragma unroll
        for (int v = 0; v < PACKS; ++v)
            if (v * LANES + lane < layout.packs) body(parts[v], column(v));
        if constexpr (ENDS == 1) {
            if (in_head() || in_tail()) body(ends[0], in_head() ? lane : past_tail);
        } else {
            if (in_head()) body(ends[0], lane);
            if (in_tail()) body(ends[1], past_tail);
        }
    }
};

// A whole row in one lane.
template <class Op, int M> struct LaneRow {
    Part<typename Op::Value, M, holds_odds<Op>(M)> part;

    template <class Body> __device__ void for_each(Body body) { body(part, 0); }
};

template <class First, class Second> struct Both {
    First first;
    Second second;
    __device__ void merge(const Both& other) {
        first.merge(other.first);
        second.merge(other.second);
    }
};

template <class C, class OpSums> struct RowSums {
    C mass;
    Lowest k;
    OpSums rest;
    __device__ void merge(const RowSums& other) {
        mass += other.mass;
        k.merge(other.k);
        rest.merge(other.rest);
    }
};

// Σ e_j of neighbouring logits, with the maximum as -inf; each becomes its e_j unless the outputs are made of logits.
template <class Op, class C, int N> __device__ C exponentiate(C (&values)[N], C origin) {
    C even = 0, odd = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const C e = exp_of<typename Op::Storage>(values[i] - origin);
        if (!Op::KEEPS_LOGITS) values[i] = e;
        if (i % 2) odd += e;
        else even += e;
    }
    return even + odd;
}

template <class C, int N> __device__ void odds_of(const Row<C>& state, const C (&e)[N], C (&odds)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) odds[i] = state.odds(e[i]);
}

template <class C, int N> __device__ void mask_column(C (&values)[N], int first, int column) {
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (first + i == column) values[i] = -infinity<C>();
}

// Sums up over the odds of a part, and keeps them where there is room.
template <class Op, class C, int N, bool HOLDS_ODDS, class Targets>
__device__ void gather_odds(const Op& op, const Row<C>& state, Part<C, N, HOLDS_ODDS>& part, int column, const Targets& targets,
                            typename Op::Gathered& gathered) {
    C odds[N];
    odds_of(state, part.value, odds);
    op.gather(odds, column, targets, gathered);
    if constexpr (HOLDS_ODDS) memcpy(part.odds, odds, sizeof(odds));
}

// From the logits that a group holds to all that is known of their row. Returns the column of the maximum to the lane
// that holds it, and NO_COLUMN to the others.
template <class Op, class Group, class Held, class Targets>
__device__ int sum_up(Op& op, const Group& group, Held& held, Row<typename Op::Value>& state, const Targets& targets, bool writes_loss) {
    typedef typename Op::Value C;
    Maxima<C> mine = Maxima<C>::none();
    held.for_each([&](auto& part, int) {
#pragma unroll
        for (int i = 0; i < count_of(part.value); ++i) mine.add(part.value[i]);
    });
    group.meet();
    const Maxima<C> all = group.template reduce<0>(mine);

    // Whoever has the maximum finds its column, and takes it out of the row.
    int own = NO_COLUMN;
    if (mine.first == all.first)
        held.for_each([&](auto& part, int column) {
#pragma unroll
            for (int i = 0; i < count_of(part.value); ++i)
                if (part.value[i] == all.first) own = min(own, column + i);
        });
    if (group.any(all.first == all.second)) {
        const Lowest k = group.template reduce<1>(Lowest{own});
        if (own != k.column) own = NO_COLUMN;
    }
    if (own != NO_COLUMN) held.for_each([&](auto& part, int column) { mask_column(part.value, column, own); });

    state.settle(all.first, all.second);
    RowSums<C, typename Op::Sums> sums = {C(0), {own}, {}};
    held.for_each([&](auto& part, int column) {
        if (op.weighs()) op.weigh(part.value, column, own, targets, state, sums.rest);
        sums.mass += exponentiate<Op>(part.value, state.second);
    });
    sums = group.template reduce<2>(sums);
    state.complete(sums.mass);
    op.settle(state, sums.k.column);

    typename Op::Gathered gathered = {};
    if constexpr (Op::GATHERS) {
        held.for_each([&](auto& part, int column) { gather_odds(op, state, part, column, targets, gathered); });
        gathered = group.template reduce<3>(gathered);
    }
    state.conclude();
    op.finish(state, sums.rest, gathered, writes_loss);
    return own;
}

// The outputs in place of a part's values.
template <class Op, class C, int N, bool HOLDS_ODDS, class Targets>
__device__ void put_outputs(const Op& op, const Row<C>& state, Part<C, N, HOLDS_ODDS>& part, int column, const Targets& targets) {
    C odds[N];
    if constexpr (HOLDS_ODDS) memcpy(odds, part.odds, sizeof(odds));
    else if constexpr (Op::GATHERS) odds_of(state, part.value, odds);
    op.output(part.value, odds, column, targets, state);
}

// Stores neighbouring outputs. Where the operation hides masked classes, their logits are read again: still this lane's own.
template <class Op, class C, int N>
__device__ void store_outputs(const Op& op, C (&values)[N], const typename Op::Storage* z, typename Op::Storage* out, bool aligned) {
    typedef typename Op::Storage S;
    if (op.hides()) {
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (C(z[i]) == -infinity<C>()) values[i] = 0;
    }
    const Pack<S, N> pack = rounded<S, N>(values);
    if (N > 1 && aligned) {
        store_once(out, pack);
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) out[i] = pack.at[i];
    }
}
