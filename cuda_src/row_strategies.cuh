// Three ways of taking a row through an operation; which one a row's length gets is chosen in Python, row_strategy.py.
//
// - rows_of_lanes   a lane a row. A warp stages 32 whole rows in shared memory, so that global memory sees whole lines.
// - row_in_registers  a group of lanes a row, each holding its part: read once, written once.
// - row_in_passes   a block a row that is kept in shared memory; of a row that is longer, as much as there is room for, and
//                   the rest is read anew in each pass, every second one backwards: what was read last is what the L2 cache
//                   still has.
#pragma once

#include "row_operation.cuh"

// Threads of a block that has a row for each of its groups of LANES.
__device__ constexpr int threads_for(int lanes) { return lanes < 128 ? 128 : lanes; }

// The least number of threads that a multiprocessor must be able to hold, which bounds the registers of each: while one
// row's bytes are on their way, others are computed. Nothing may be spilled for it on any architecture; from sm_100 on the
// compiler takes more registers for the same code. Operations that weigh each class by itself, and float64, go without.
template <class Op> constexpr bool LEAN = Op::EQUAL && sizeof(typename Op::Value) == 4;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr bool LARGER_CODE = true;
#else
constexpr bool LARGER_CODE = false;
#endif

template <class Op, int M, int THREADS> __device__ constexpr int blocks_of_lanes() {
    constexpr int RESIDENT = LARGER_CODE ? (M <= 10 ? 896 : M <= 16 ? 768 : M <= 32 ? 512 : 384) : (M <= 10 ? 1024 : M <= 16 ? 896 : 512);
    return LEAN<Op> ? RESIDENT / THREADS : 1;
}

template <class Op, int LANES, int PACKS> __device__ constexpr int blocks_in_registers() {
    constexpr int VALUES = PACKS * PACK<typename Op::Storage>;
    constexpr int RESIDENT = LARGER_CODE ? (VALUES <= 8 || LANES > 32 ? 768 : 640) : (VALUES <= 8 ? 1024 : 768);
    return LEAN<Op> && LANES <= 256 ? RESIDENT / threads_for(LANES) : 1;
}

// LANES of a block, times BLOCKS of a cluster, take a row.
template <class Op, int LANES, int PACKS, int BLOCKS>
__device__ void row_in_registers(Op op, const typename Op::Storage* z, typename Op::Storage* out, Index n, int m) {
    typedef typename Op::Storage S;
    typedef typename Op::Value C;
    const RowGroup<LANES, BLOCKS> group;
    const bool there = group.row < n;
    const Index row = there ? group.row : 0;
    z += row * m;
    const bool live = op.start(row, m, there);
    HeldRow<Op, PACKS, LANES * BLOCKS> held(z, m, group.lane, live);
    if (op.label != NO_COLUMN) op.heard(C(z[op.label]));

    const auto targets = op.targets(row, m);
    Row<C> state;
    const int own = sum_up(op, group, held, state, targets, there && group.lane == 0);
    if (!there || out == nullptr) return;

    group.fence();
    out += row * m;
    const bool aligned = lead(out + held.layout.head) == 0;
    held.for_each([&](auto& part, int column) {
        put_outputs(op, state, part, column, targets);
        store_outputs(op, part.value, z + column, out + column, aligned);
    });
    // Over what the same lane has just stored there.
    if (live && own != NO_COLUMN) out[own] = S(op.at_k(state));
    if (op.label != NO_COLUMN && held.holds(op.label)) out[op.label] = S(op.at_label(state));
}

// A lane takes a row of M; WARPS of a block take 32 rows each.
template <class Op, int M, int WARPS>
__device__ void rows_of_lanes(Op op, const typename Op::Storage* z, typename Op::Storage* out, Index n) {
    typedef typename Op::Storage S;
    typedef typename Op::Value C;
    __shared__ Tile<S, M, C> tiles[WARPS];
    const RowGroup<1> group;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Index first = group.row - lane;
    if (first >= n) return;
    const int elements = int(n - first < 32 ? n - first : 32) * M;
    Tile<S, M, C>& tile = tiles[warp];
    tile.load(z + first * M, elements, lane);
    const auto targets = op.template staged_targets<M, WARPS>(first, elements, lane, warp);
    __syncwarp();

    const bool there = group.row < n;
    C* const mine = tile.at + lane * Tile<S, M, C>::PITCH;
    const bool live = op.start(there ? group.row : 0, M, there);
    LaneRow<Op, M> held;
#pragma unroll
    for (int i = 0; i < M; ++i) held.part.value[i] = live ? mine[i] : C(0);
    if (op.label != NO_COLUMN) op.heard(mine[op.label]);

    Row<C> state;
    const int own = sum_up(op, group, held, state, targets, there);
    if (out == nullptr) return;

    put_outputs(op, state, held.part, 0, targets);
    const bool hides = op.hides();
#pragma unroll
    for (int i = 0; i < M; ++i)
        if (!hides || mine[i] != -infinity<C>()) mine[i] = held.part.value[i];
        else mine[i] = 0;
    if (live && own != NO_COLUMN) mine[own] = op.at_k(state);
    if (op.label != NO_COLUMN) mine[op.label] = op.at_label(state);
    __syncwarp();
    tile.store(out + first * M, elements, lane);
}

// Packs on their way to a lane of row_in_passes before the first is used: what 128 registers allow.
template <class Op> __device__ constexpr int loads_at_once() {
    if (sizeof(typename Op::Value) == 8) return Op::EQUAL ? 4 : 2;
    return LARGER_CODE && sizeof(typename Op::Storage) == 2 && !Op::EQUAL ? 4 : 8;
}

// A block takes a row in up to three passes. The first leaves the first `room` packs in shared memory, each lane its own
// share; the others read only what lies behind them.
template <class Op, int LANES>
__device__ void row_in_passes(Op op, const typename Op::Storage* z, typename Op::Storage* out, int m, int room) {
    typedef typename Op::Storage S;
    typedef typename Op::Value C;
    constexpr int WIDTH = PACK<S>, AT_ONCE = loads_at_once<Op>();
    extern __shared__ uint4 staging[];
    const RowGroup<LANES> group;
    const int lane = group.lane;
    z += group.row * m;
    const bool live = op.start(group.row, m, true);
    const Layout<S> layout(z, m);
    const int tail_column = m - layout.tail + lane;
    S* const staged = reinterpret_cast<S*>(staging);
    if (op.label != NO_COLUMN) op.heard(C(z[op.label]));

    C head[1] = {lane < layout.head && live ? C(z[lane]) : C(0)};
    C tail[1] = {lane < layout.tail && live ? C(z[tail_column]) : C(0)};

    // Calls body(logits, their first column) for this lane's share of the row.
    const auto pass = [&](bool first, bool last, bool backward, auto body) {
        const int rounds = (layout.packs + LANES * AT_ONCE - 1) / (LANES * AT_ONCE);
        for (int i = 0; i < rounds; ++i) {
            const int round = (backward ? rounds - 1 - i : i) * (LANES * AT_ONCE) + lane;
            Pack<S, WIDTH> raw[AT_ONCE];
#pragma unroll
            for (int v = 0; v < AT_ONCE; ++v) {
                const int pack = round + v * LANES;
                memset(raw + v, 0, sizeof(raw[v]));
                if (pack >= layout.packs || !live) continue;
                const S* const from = z + layout.head + Index(pack) * WIDTH;
                if (pack < room && !first) raw[v].load(staged + pack * WIDTH);
                else if (pack < room || last) raw[v] = load_once<S, WIDTH>(from);
                else raw[v].load(from);
            }
#pragma unroll
            for (int v = 0; v < AT_ONCE; ++v) {
                const int pack = round + v * LANES;
                if (pack >= layout.packs) continue;
                if (first && pack < room) raw[v].store(staged + pack * WIDTH);
                C values[WIDTH];
#pragma unroll
                for (int i = 0; i < WIDTH; ++i) values[i] = C(raw[v].at[i]);
                body(values, layout.head + pack * WIDTH);
            }
        }
        if (lane < layout.head) {
            C values[1] = {head[0]};
            body(values, lane);
        }
        if (lane < layout.tail) {
            C values[1] = {tail[0]};
            body(values, tail_column);
        }
    };

    RowState<C> part = RowState<C>::none();
    pass(true, false, false, [&](auto& values, int column) { part.template add_all<S>(values, column); });
    part = group.template reduce<0>(part);
    Row<C> state;
    state.settle(part.first, part.second);
    state.complete(part.mass);
    op.settle(state, part.k);

    const auto targets = op.targets(group.row, m);
    Both<typename Op::Sums, typename Op::Gathered> sums = {};
    const bool sums_up = Op::GATHERS || op.weighs();
    if (sums_up) {
        pass(false, false, true, [&](auto& values, int column) {
            if (op.weighs()) op.weigh(values, column, part.k, targets, state, sums.first);
            if constexpr (Op::GATHERS) {
                mask_column(values, column, part.k);
                exponentiate<Op>(values, state.second);
                C odds[sizeof(values) / sizeof(C)];
                odds_of(state, values, odds);
                op.gather(odds, column, targets, sums.second);
            }
        });
        sums = group.template reduce<1>(sums);
    }
    state.conclude();
    op.finish(state, sums.first, sums.second, lane == 0);
    if (out == nullptr) return;

    out += group.row * m;
    const bool aligned = lead(out + layout.head) == 0;
    pass(false, true, !sums_up, [&](auto& values, int column) {
        Part<C, sizeof(values) / sizeof(C), false> outputs;
        memcpy(outputs.value, values, sizeof(values));
        const bool has_k = unsigned(part.k - column) < unsigned(count_of(values));
        const bool has_label = unsigned(op.label - column) < unsigned(count_of(values));
        mask_column(outputs.value, column, part.k);
        exponentiate<Op>(outputs.value, state.second);
        put_outputs(op, state, outputs, column, targets);
        store_outputs(op, outputs.value, z + column, out + column, aligned);
        if (live && has_k) out[part.k] = S(op.at_k(state));
        if (has_label) out[op.label] = S(op.at_label(state));
    });
}
