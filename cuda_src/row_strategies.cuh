// Three drivers that take a row through a row operation (row_operation.cuh). row_strategy.py chooses one by the row's
// length.
//
// - thread_per_row    One thread has a row. A warp stages 32 whole rows in shared memory, so that it reads and writes whole
//                     cache lines.
// - row_in_registers  A group of threads has a row, each a part of it in registers: read once, written once. The group is 8
//                     threads, a warp, a block, or from sm_90 on the blocks of a cluster.
// - multi_pass_row    A block has a row and keeps it in shared memory. Of a longer row it keeps as much as there is
//   room for,
//                     and reads the rest again in each pass, every second pass backwards: the L2 cache still has what was
//                     read last.
#pragma once

#include "row_operation.cuh"

// Threads of a block whose rows have `row_threads` threads each.
__device__ constexpr int block_threads(int row_threads) { return row_threads < 128 ? 128 : row_threads; }

// Whether __launch_bounds__ asks for a minimum of resident threads on a multiprocessor, which bounds the registers of each
// thread: while one row is being loaded, others are computed. The minima are the largest that spill no register on any
// architecture. Operations without UNIFORM_CLASSES, and float64, have none.
template <class Op> constexpr bool BOUNDS_REGISTERS = Op::UNIFORM_CLASSES && sizeof(Compute<typename Op::Storage>) == 4;

// From sm_100 on the compiler takes more registers for the same code.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr bool IS_SM100 = true;
#else
constexpr bool IS_SM100 = false;
#endif

template <class Op, int M, int THREADS> __device__ constexpr int min_blocks_thread_per_row() {
    constexpr int RESIDENT_THREADS =
        IS_SM100 ? (M <= 10 ? 896 : M <= 16 ? 768 : M <= 32 ? 512 : 384) : (M <= 10 ? 1024 : M <= 16 ? 896 : 512);
    return BOUNDS_REGISTERS<Op> ? RESIDENT_THREADS / THREADS : 1;
}

template <class Op, int ROW_THREADS, int VECTORS> __device__ constexpr int min_blocks_in_registers() {
    constexpr int VALUES = VECTORS * VECTOR_WIDTH<typename Op::Storage>;
    constexpr int RESIDENT_THREADS = IS_SM100 ? (VALUES <= 8 || ROW_THREADS > 32 ? 768 : 640) : (VALUES <= 8 ? 1024 : 768);
    return BOUNDS_REGISTERS<Op> && ROW_THREADS <= 256 ? RESIDENT_THREADS / block_threads(ROW_THREADS) : 1;
}

// ROW_THREADS threads in each of CLUSTER_BLOCKS blocks have a row.
template <class Op, int ROW_THREADS, int VECTORS, int CLUSTER_BLOCKS>
__device__ void row_in_registers(Op op, const typename Op::Storage* z, typename Op::Storage* out, Index n, int m) {
    typedef typename Op::Storage S;
    typedef Compute<S> C;
    const RowGroup<ROW_THREADS, CLUSTER_BLOCKS> group;
    const bool in_range = group.row < n;
    const Index row = in_range ? group.row : 0;
    z += row * m;
    const bool active = op.begin_row(row, m, in_range);
    RegisterRow<Op, VECTORS, ROW_THREADS * CLUSTER_BLOCKS> row_values(z, m, group.rank, active);
    if (op.label != NO_COLUMN) op.label_logit = C(z[op.label]);

    const auto targets = op.targets(row, m);
    RowState<C> state;
    const int own_argmax = reduce_row(op, group, row_values, state, targets, in_range && group.rank == 0);
    if (!in_range || out == nullptr) return;

    group.sync_warp();
    out += row * m;
    const bool aligned = misalignment(out + row_values.layout.head) == 0;
    row_values.for_each([&](auto& fragment, int column) {
        compute_outputs(op, state, fragment, column, targets);
        store_outputs(op, fragment.value, z + column, out + column, aligned);
    });
    // Overwrites what the same thread has just stored.
    if (active && own_argmax != NO_COLUMN) out[own_argmax] = S(op.output_at_argmax(state));
    if (op.label != NO_COLUMN && row_values.holds(op.label)) out[op.label] = S(op.output_at_label());
}

// A thread has a row of M logits; each of the WARPS of a block has 32 rows.
template <class Op, int M, int WARPS>
__device__ void thread_per_row(Op op, const typename Op::Storage* z, typename Op::Storage* out, Index n) {
    typedef typename Op::Storage S;
    typedef Compute<S> C;
    __shared__ Tile<S, M, C> tiles[WARPS];
    const RowGroup<1> group;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Index first = group.row - lane;
    if (first >= n) return;
    const int elements = int(n - first < 32 ? n - first : 32) * M;
    Tile<S, M, C>& tile = tiles[warp];
    tile.load(z + first * M, elements, lane);
    const auto targets = op.template stage_targets<M, WARPS>(first, elements, lane, warp);
    __syncwarp();

    const bool in_range = group.row < n;
    C* const mine = tile.at + lane * Tile<S, M, C>::PITCH;
    const bool active = op.begin_row(in_range ? group.row : 0, M, in_range);
    ThreadRow<Op, M> row_values;
#pragma unroll
    for (int i = 0; i < M; ++i) row_values.fragment.value[i] = active ? mine[i] : C(0);
    if (op.label != NO_COLUMN) op.label_logit = mine[op.label];

    RowState<C> state;
    const int own_argmax = reduce_row(op, group, row_values, state, targets, in_range);
    if (out == nullptr) return;

    compute_outputs(op, state, row_values.fragment, 0, targets);
    const bool zeroes_masked = op.zeroes_masked();
#pragma unroll
    for (int i = 0; i < M; ++i)
        if (!zeroes_masked || mine[i] != -infinity<C>()) mine[i] = row_values.fragment.value[i];
        else mine[i] = 0;
    if (active && own_argmax != NO_COLUMN) mine[own_argmax] = op.output_at_argmax(state);
    if (op.label != NO_COLUMN) mine[op.label] = op.output_at_label();
    __syncwarp();
    tile.store(out + first * M, elements, lane);
}

// Vectors that a thread of multi_pass_row loads before it uses the first: as many as 128 registers allow.
template <class Op> __device__ constexpr int loads_in_flight() {
    if (sizeof(Compute<typename Op::Storage>) == 8) return Op::UNIFORM_CLASSES ? 4 : 2;
    return IS_SM100 && sizeof(typename Op::Storage) == 2 && !Op::UNIFORM_CLASSES ? 4 : 8;
}

// A block has a row and goes over it in up to three passes: row state, sums, outputs. The first pass copies the first
// `cached_vectors` vectors to shared memory; later passes read only the rest from global memory. Each thread reads back
// only what it has copied itself.
template <class Op, int ROW_THREADS>
__device__ void multi_pass_row(Op op, const typename Op::Storage* z, typename Op::Storage* out, int m, int cached_vectors) {
    typedef typename Op::Storage S;
    typedef Compute<S> C;
    constexpr int WIDTH = VECTOR_WIDTH<S>, IN_FLIGHT = loads_in_flight<Op>();
    extern __shared__ uint4 staging[];
    const RowGroup<ROW_THREADS> group;
    const int rank = group.rank;
    z += group.row * m;
    const bool active = op.begin_row(group.row, m, true);
    const RowLayout<S> layout(z, m);
    const int tail_column = m - layout.tail + rank;
    S* const staged = reinterpret_cast<S*>(staging);
    if (op.label != NO_COLUMN) op.label_logit = C(z[op.label]);

    C head[1] = {rank < layout.head && active ? C(z[rank]) : C(0)};
    C tail[1] = {rank < layout.tail && active ? C(z[tail_column]) : C(0)};

    // Calls body(logits, their first column) for this thread's part of the row.
    const auto pass = [&](bool first, bool last, bool backward, auto body) {
        const int rounds = (layout.vectors + ROW_THREADS * IN_FLIGHT - 1) / (ROW_THREADS * IN_FLIGHT);
        for (int i = 0; i < rounds; ++i) {
            const int round = (backward ? rounds - 1 - i : i) * (ROW_THREADS * IN_FLIGHT) + rank;
            Vector<S, WIDTH> raw[IN_FLIGHT];
#pragma unroll
            for (int v = 0; v < IN_FLIGHT; ++v) {
                const int vector = round + v * ROW_THREADS;
                memset(raw + v, 0, sizeof(raw[v]));
                if (vector >= layout.vectors || !active) continue;
                const S* const from = z + layout.head + Index(vector) * WIDTH;
                if (vector < cached_vectors && !first) raw[v].load(staged + vector * WIDTH);
                else if (vector < cached_vectors || last) raw[v] = load_streaming<S, WIDTH>(from);
                else raw[v].load(from);
            }
#pragma unroll
            for (int v = 0; v < IN_FLIGHT; ++v) {
                const int vector = round + v * ROW_THREADS;
                if (vector >= layout.vectors) continue;
                if (first && vector < cached_vectors) raw[v].store(staged + vector * WIDTH);
                C values[WIDTH];
#pragma unroll
                for (int i = 0; i < WIDTH; ++i) values[i] = C(raw[v].at[i]);
                body(values, layout.head + vector * WIDTH);
            }
        }
        if (rank < layout.head) {
            C values[1] = {head[0]};
            body(values, rank);
        }
        if (rank < layout.tail) {
            C values[1] = {tail[0]};
            body(values, tail_column);
        }
    };

    PartialRowState<C> partial = PartialRowState<C>::none();
    pass(true, false, false, [&](auto& values, int column) { partial.template add_all<S>(values, column); });
    partial = group.template reduce<0>(partial);
    RowState<C> state;
    state.set_maxima(partial.first, partial.second);
    state.set_sum_exp(partial.sum_exp);
    op.set_argmax(partial.k);

    const auto targets = op.targets(group.row, m);
    Pair<typename Op::LogitSums, typename Op::OddsSums> sums = {};  // first: over logits; second: over odds
    const bool needs_second_pass = Op::NEEDS_ODDS || op.needs_logit_sums();
    if (needs_second_pass) {
        pass(false, false, true, [&](auto& values, int column) {
            if (op.needs_logit_sums()) op.add_logits(values, column, partial.k, targets, state, sums.first);
            if constexpr (Op::NEEDS_ODDS) {
                mask_column(values, column, partial.k);
                exp_in_place<Op>(values, state.second);
                C odds[sizeof(values) / sizeof(C)];
                compute_odds(state, values, odds);
                op.add_odds(odds, column, targets, sums.second);
            }
        });
        sums = group.template reduce<1>(sums);
    }
    state.set_probabilities();
    op.finish_row(state, sums.first, sums.second, rank == 0);
    if (out == nullptr) return;

    out += group.row * m;
    const bool aligned = misalignment(out + layout.head) == 0;
    pass(false, true, !needs_second_pass, [&](auto& values, int column) {
        Fragment<C, sizeof(values) / sizeof(C), false> outputs;
        memcpy(outputs.value, values, sizeof(values));
        const bool has_k = unsigned(partial.k - column) < unsigned(count_of(values));
        const bool has_label = unsigned(op.label - column) < unsigned(count_of(values));
        mask_column(outputs.value, column, partial.k);
        exp_in_place<Op>(outputs.value, state.second);
        compute_outputs(op, state, outputs, column, targets);
        store_outputs(op, outputs.value, z + column, out + column, aligned);
        if (active && has_k) out[partial.k] = S(op.output_at_argmax(state));
        if (has_label) out[op.label] = S(op.output_at_label());
    });
}
