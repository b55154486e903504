// Runs a grid: block after block, and within a block one thread at a time, each as far as it can go before it must wait.
// A thread that never waits needs no stack of its own: the next one starts where it ended.
//
// The order is strict, ascending or descending: of two accesses with no barrier between them, one order performs the first one
// first and the other the second, which is how a missing barrier shows as wrong numbers.
#include <cstdio>
#include <cstring>
#include <mutex>

#include <link.h>

#include "execution_state.h"
#include "fibers.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_emulator {

Launch launch;
Block block;
Warp warps[MAX_THREADS / WARP];
Thread threads[MAX_THREADS];
Thread* running;
uintptr_t shared_begin, shared_end;

namespace {

std::mutex one_launch;
void* launcher;  // the context that called launch
void* discarded;
std::string failure;
unsigned blocks_left;
uintptr_t dynamic_begin;

int first_of(unsigned set) { return launch.reverse ? 31 - __builtin_clz(set) : __builtin_ctz(set); }

// Shared memory starts as 0xff bytes, which are NaN in every floating-point type: what is read before it is written shows.
void fill_shared_memory() {
    const uintptr_t dynamic_end = dynamic_begin + launch.dynamic_shared_capacity;
    memset(reinterpret_cast<void*>(shared_begin), 0xff, dynamic_begin - shared_begin);
    memset(reinterpret_cast<void*>(dynamic_begin), 0xff, launch.shared_bytes);
    memset(reinterpret_cast<void*>(dynamic_end), 0xff, shared_end - dynamic_end);
}

void begin_block() {
    const unsigned total = launch.grid[0] * launch.grid[1] * launch.grid[2];
    const unsigned number = launch.reverse ? blocks_left - 1 : total - blocks_left;
    blockIdx = {number % launch.grid[0], number / launch.grid[0] % launch.grid[1], number / launch.grid[0] / launch.grid[1]};
    block.index = number;
    block.alive = block.threads;
    block.arrived = 0;
    block.epoch = 0;
    block.ready_warps = 0;
    for (int w = 0; w * WARP < block.threads; ++w) {
        const int lanes = block.threads - w * WARP;
        warps[w].ready = 0;
        warps[w].group_count = 0;
        warps[w].alive = lanes >= WARP ? ~0u : (1u << lanes) - 1;
        set_ready(w, warps[w].alive);
    }
    for (int t = 0; t < block.threads; ++t) threads[t].context = nullptr;
    fill_shared_memory();
    if (launch.check == Check::MEMORY_AND_RACES) begin_checked_block();
}

void explain_deadlock() {
    const char* what = "divergent barrier: not every thread of the block reaches it\n";
    for (int w = 0; w * WARP < block.threads; ++w) {
        if (warps[w].group_count == 1) what = "deadlock: every thread waits or has returned\n";
        if (warps[w].group_count > 1) {
            what = "wrong warp mask: lanes of one warp wait with different masks\n";
            break;
        }
    }
    fail(what + where_threads_are());
}

[[gnu::noinline]] bool next_block() {
    if (block.alive) explain_deadlock();
    if (--blocks_left == 0) return false;
    begin_block();
    return true;
}

// Null when the grid is done.
inline Thread* next_thread() {
    if (__builtin_expect(!block.ready_warps, false) && !next_block()) return nullptr;
    const int w = first_of(block.ready_warps);
    return &threads[w * WARP + first_of(warps[w].ready)];
}

void become(Thread& thread) {
    running = &thread;
    threadIdx = thread.index;
}

void run_threads() {
    for (;;) {
        launch.kernel->run(launch.arguments);
        Thread& done = *running;
        --block.alive;
        warp_of(done).alive &= ~bit_of(done);
        set_waiting(done, Waiting::EXITED);
        if (warp_of(done).group_count) lane_exited(warp_of(done));

        Thread* next = next_thread();
        if (!next) switch_context(&discarded, launcher);
        const int stack = done.stack;
        become(*next);
        if (next->context) {
            release_stack(stack);
            switch_context(&discarded, next->context);
        }
        next->stack = stack;
    }
}

void start(Thread& thread) {
    thread.stack = take_stack();
    thread.context = new_context(thread.stack, run_threads);
}

struct ThreadLocals {
    uintptr_t address, begin, end;
};

int find_thread_locals(dl_phdr_info* info, size_t, void* found) {
    auto& wanted = *static_cast<ThreadLocals*>(found);
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        if (info->dlpi_phdr[i].p_type != PT_TLS || !info->dlpi_tls_data) continue;
        const uintptr_t begin = uintptr_t(info->dlpi_tls_data), end = begin + info->dlpi_phdr[i].p_memsz;
        if (wanted.address < begin || wanted.address >= end) continue;
        wanted.begin = begin, wanted.end = end;
        return 1;
    }
    return 0;
}

// The module's thread-local block is its shared memory. Looking it up is slow, so the last answer is kept.
void find_shared_memory() {
    dynamic_begin = uintptr_t(launch.dynamic_shared());
    thread_local ThreadLocals last = {};
    if (last.address != dynamic_begin) {
        last.address = dynamic_begin;
        dl_iterate_phdr(find_thread_locals, &last);
    }
    shared_begin = last.begin, shared_end = last.end;
}

}  // namespace

void run_others() {
    Thread& self = *running;
    Thread* next = next_thread();
    if (next == &self) return;
    become(*next);
    if (!next->context) start(*next);
    switch_context(&self.context, next->context);
}

void fail(const std::string& message) {
    const Thread& t = *running;
    char place[200];
    snprintf(place, sizeof place, "block (%u, %u, %u), thread (%u, %u, %u): ", blockIdx.x, blockIdx.y, blockIdx.z,
             t.index.x, t.index.y, t.index.z);
    failure = place + message;
    switch_context(&discarded, launcher);
    __builtin_unreachable();
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

CUDA_EMULATOR_EXPORT unsigned cuda_emulator_alive_lanes() { return warp_of(*running).alive; }
CUDA_EMULATOR_EXPORT int cuda_emulator_lane() { return running->lane; }
CUDA_EMULATOR_EXPORT long long cuda_emulator_clock() {
    static long long ticks = 0;
    return ++ticks;
}
CUDA_EMULATOR_EXPORT void cuda_emulator_trap(const char* what, int line, const char* file) {
    fail(std::string(what) + " (" + file + ":" + std::to_string(line) + ")");
}

// Zero for a grid that ran to its end, else one, and the reason in `message`.
CUDA_EMULATOR_EXPORT int cuda_emulator_launch(const Launch* request, char* message, size_t capacity) {
    const std::lock_guard<std::mutex> lock(one_launch);
    launch = *request;
    gridDim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    blockDim = {launch.block[0], launch.block[1], launch.block[2]};
    block.threads = int(launch.block[0] * launch.block[1] * launch.block[2]);
    for (int t = 0; t < block.threads; ++t) {
        const unsigned x = launch.block[0], y = launch.block[1];
        threads[t].index = {t % x, t / x % y, t / x / y};
        threads[t].lane = t % WARP;
        threads[t].warp = t / WARP;
    }
    blocks_left = launch.grid[0] * launch.grid[1] * launch.grid[2];
    failure.clear();
    find_shared_memory();
    release_all_stacks();
    if (launch.check != Check::NONE) begin_checked_launch();
    begin_block();

    Thread& first = *next_thread();
    become(first);
    start(first);
    catch_signals(launch.seconds);
    switch_context(&launcher, first.context);
    release_signals();

    if (launch.check != Check::NONE) end_checked_launch();
    snprintf(message, capacity, "%s", failure.c_str());
    return !failure.empty();
}
