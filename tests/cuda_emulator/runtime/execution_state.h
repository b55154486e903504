// The one running launch: its threads, warps and block, and what the parts of the runtime ask of each other.
// Everything here belongs to a single thread of the operating system, the one that launched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#define CUDA_EMULATOR_EXPORT extern "C" __attribute__((visibility("default")))
#define CUDA_EMULATOR_SITE int line = __builtin_LINE(), const char* file = __builtin_FILE()

#include "cuda_emulator/vector_types.h"
#include "cuda_emulator/execution.h"
#include "cuda_emulator/kernel_signature.h"

namespace cuda_emulator {

constexpr int WARP = 32;
constexpr int MAX_THREADS = 1024;

inline bool unlike(const char* a, const char* b) { return a != b && __builtin_strcmp(a, b); }

// A place in the kernel's source where a thread waits or waited: the intrinsic, and the line that called it.
struct Site {
    const char* name;
    const char* file;
    int line;
    bool differs(const Site& other) const {
        return line != other.line || unlike(name, other.name) || unlike(file, other.file);
    }
};

// What a thread waits for while it is not ready; `ready` of its warp says whether it is.
enum class Waiting : unsigned char { AT_COLLECTIVE, AT_BARRIER, EXITED };

struct alignas(128) Thread {
    void* context;  // its saved stack pointer; null until it first runs
    short stack;    // which of the pool's stacks it runs on
    short lane, warp;
    Waiting waiting;
    uint3 index;
    Site barrier;   // where it waits for the block

    // its part in the collective it waits for
    int source_lane;
    unsigned long long value, result;
};

// Lanes that have arrived at one collective with one mask. A lane of the mask that waits at another collective may still come.
struct Group {
    unsigned mask, arrived;
    Collective what;
    Site site;
};

struct Warp {
    unsigned alive, ready;
    int group_count;
    Group groups[WARP];
};

// Arrays the kernel was given, and shared memory: what a checked build may touch. `argument` is -1 for shared memory.
struct Region {
    uintptr_t begin, end;
    int writable;
    int argument;
};

enum class Check : int { NONE, MEMORY, MEMORY_AND_RACES };

struct Launch {
    const Kernel* kernel;
    void** arguments;
    unsigned grid[3], block[3];
    size_t shared_bytes;
    int reverse;
    Check check;
    const Region* regions;
    int region_count;
    double seconds;          // after which the launch counts as hanging
    void* (*dynamic_shared)();  // the module's dynamic shared memory on the calling thread
    size_t dynamic_shared_capacity;
};

struct Block {
    unsigned index;  // in launch order of the grid's linear numbering
    int threads, alive, arrived;
    unsigned ready_warps;
    Site barrier;
    int count, result;
    uint32_t epoch;  // barriers passed
};

extern Launch launch;
extern Block block;
extern Warp warps[MAX_THREADS / WARP];
extern Thread threads[MAX_THREADS];
extern Thread* running;
extern uintptr_t shared_begin, shared_end;  // static and dynamic shared memory, in one piece

inline int number_of(const Thread& t) { return int(&t - threads); }
inline Warp& warp_of(const Thread& t) { return warps[t.warp]; }
inline unsigned bit_of(const Thread& t) { return 1u << t.lane; }

// scheduler: give the processor to the next thread that can run (maybe the same), in lane order
void run_others();

inline void set_ready(int warp, unsigned lanes) {
    warps[warp].ready |= lanes;
    block.ready_warps |= 1u << warp;
}

inline void set_waiting(Thread& thread, Waiting waiting) {
    thread.waiting = waiting;
    Warp& warp = warp_of(thread);
    warp.ready &= ~bit_of(thread);
    if (!warp.ready) block.ready_warps &= ~(1u << thread.warp);
}

// collectives: a lane has left, so that those who wait may be complete
void lane_exited(Warp& warp);

// failure: ends the launch with this message; never returns to the kernel
[[noreturn]] void fail(const std::string& message);
std::string where_threads_are();
std::string describe(const Site& site);
std::string lanes_of(unsigned mask);
// "<library+offset>" and "<library%offset>", for the host to look up
std::string source_line(const void* instruction);
std::string shared_variable(uintptr_t address);
// A return address is behind its call; one byte before it is on the line of the call.
inline const void* call_before(const void* return_address) { return static_cast<const char*>(return_address) - 1; }

// access checks
void begin_checked_launch();
void begin_checked_block();
void end_checked_launch();
void order_lanes(int warp, unsigned group);

// stacks
bool on_stack(int stack, uintptr_t address);
bool below_a_stack(uintptr_t address);

// signals: faults and the time limit become failures while a launch runs
void catch_signals(double seconds);
void release_signals();

}  // namespace cuda_emulator
