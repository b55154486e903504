// Loads with cache hints, fences and atomics. All CUDA threads run on one thread of the operating system, so an atomic is a
// plain read and write; the checked builds are told of it, because two atomics are no data race.
#pragma once

static inline void __threadfence() { cuda_emulator::cuda_emulator_fence(); }
static inline void __threadfence_block() { __asm__ volatile("" ::: "memory"); }  // releases nothing to other blocks
static inline void __threadfence_system() { cuda_emulator::cuda_emulator_fence(); }
static inline clock_t clock() { return cuda_emulator::cuda_emulator_clock(); }
static inline long long clock64() { return cuda_emulator::cuda_emulator_clock(); }
static inline void __nanosleep(unsigned) {}
static inline void __trap(CUDA_EMULATOR_SITE) { cuda_emulator::cuda_emulator_trap("__trap was called", line, file); }
static inline void __brkpt(CUDA_EMULATOR_SITE) { cuda_emulator::cuda_emulator_trap("__brkpt was called", line, file); }

// CUDA's headers name what an assertion that failed calls; an assertion in a kernel is a launch that failed.
#ifdef NDEBUG
#define assert(condition) ((void)0)
#else
#define assert(condition) ((condition) ? (void)0 : cuda_emulator::cuda_emulator_trap("assertion failed: " #condition, __LINE__, __FILE__))
#endif

#define CUDA_EMULATOR_LOAD(NAME) \
    template <class T> static inline T NAME(const T* address) { return *address; }
CUDA_EMULATOR_LOAD(__ldg)
CUDA_EMULATOR_LOAD(__ldca)
CUDA_EMULATOR_LOAD(__ldcg)
CUDA_EMULATOR_LOAD(__ldcs)
CUDA_EMULATOR_LOAD(__ldcv)
CUDA_EMULATOR_LOAD(__ldlu)
#undef CUDA_EMULATOR_LOAD

#define CUDA_EMULATOR_STORE(NAME) \
    template <class T> static inline void NAME(T* address, T value) { *address = value; }
CUDA_EMULATOR_STORE(__stcg)
CUDA_EMULATOR_STORE(__stcs)
CUDA_EMULATOR_STORE(__stwb)
CUDA_EMULATOR_STORE(__stwt)
#undef CUDA_EMULATOR_STORE

CUDA_EMULATOR_EXPORT void cuda_emulator_atomic_access(const void* address, int bytes, const void* caller);

#ifdef __SANITIZE_THREAD__
#define CUDA_EMULATOR_ATOMIC __attribute__((noinline, no_sanitize("thread"))) static
#define CUDA_EMULATOR_NOTE(address) cuda_emulator_atomic_access(address, sizeof(*address), __builtin_return_address(0))
#else
#define CUDA_EMULATOR_ATOMIC static inline
#define CUDA_EMULATOR_NOTE(address) ((void)0)
#endif

#define CUDA_EMULATOR_UPDATE(NAME, T, NEW)                  \
    CUDA_EMULATOR_ATOMIC T NAME(T* address, T value) {      \
        CUDA_EMULATOR_NOTE(address);                        \
        const T old = *address;                             \
        *address = NEW;                                     \
        return old;                                         \
    }                                                       \
    static inline T NAME##_block(T* address, T value) { return NAME(address, value); } \
    static inline T NAME##_system(T* address, T value) { return NAME(address, value); }
#define CUDA_EMULATOR_INTEGER_UPDATES(T)                            \
    CUDA_EMULATOR_UPDATE(atomicMin, T, value < old ? value : old)   \
    CUDA_EMULATOR_UPDATE(atomicMax, T, value > old ? value : old)   \
    CUDA_EMULATOR_UPDATE(atomicAnd, T, old & value)                 \
    CUDA_EMULATOR_UPDATE(atomicOr, T, old | value)                  \
    CUDA_EMULATOR_UPDATE(atomicXor, T, old ^ value)
CUDA_EMULATOR_INTEGER_UPDATES(int)
CUDA_EMULATOR_INTEGER_UPDATES(unsigned)
CUDA_EMULATOR_INTEGER_UPDATES(long long)
CUDA_EMULATOR_INTEGER_UPDATES(unsigned long long)
#undef CUDA_EMULATOR_INTEGER_UPDATES
// Integers wrap on a GPU; the detour over unsigned keeps that from being undefined here.
CUDA_EMULATOR_UPDATE(atomicAdd, int, int(unsigned(old) + unsigned(value)))
CUDA_EMULATOR_UPDATE(atomicAdd, unsigned, old + value)
CUDA_EMULATOR_UPDATE(atomicAdd, unsigned long long, old + value)
CUDA_EMULATOR_UPDATE(atomicAdd, float, old + value)
CUDA_EMULATOR_UPDATE(atomicAdd, double, old + value)
CUDA_EMULATOR_UPDATE(atomicSub, int, int(unsigned(old) - unsigned(value)))
CUDA_EMULATOR_UPDATE(atomicSub, unsigned, old - value)
CUDA_EMULATOR_UPDATE(atomicExch, int, value)
CUDA_EMULATOR_UPDATE(atomicExch, unsigned, value)
CUDA_EMULATOR_UPDATE(atomicExch, unsigned long long, value)
CUDA_EMULATOR_UPDATE(atomicExch, float, value)
CUDA_EMULATOR_UPDATE(atomicInc, unsigned, old >= value ? 0u : old + 1u)
CUDA_EMULATOR_UPDATE(atomicDec, unsigned, old == 0u || old > value ? value : old - 1u)
#undef CUDA_EMULATOR_UPDATE

#define CUDA_EMULATOR_COMPARE_AND_SWAP(T)                                   \
    CUDA_EMULATOR_ATOMIC T atomicCAS(T* address, T expected, T value) {     \
        CUDA_EMULATOR_NOTE(address);                                        \
        const T old = *address;                                             \
        if (old == expected) *address = value;                              \
        return old;                                                         \
    }
CUDA_EMULATOR_COMPARE_AND_SWAP(unsigned short)
CUDA_EMULATOR_COMPARE_AND_SWAP(int)
CUDA_EMULATOR_COMPARE_AND_SWAP(unsigned)
CUDA_EMULATOR_COMPARE_AND_SWAP(unsigned long long)
#undef CUDA_EMULATOR_COMPARE_AND_SWAP
