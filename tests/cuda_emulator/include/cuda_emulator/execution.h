// Threads, barriers and warp collectives. Every collective carries the place it was called from: lanes that meet at
// different places are an error on a GPU, and that place is what the error message names.
#pragma once

CUDA_EMULATOR_EXPORT uint3 threadIdx, blockIdx;
CUDA_EMULATOR_EXPORT dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

namespace cuda_emulator {

enum Collective : int {
    SYNC, SHUFFLE, BALLOT, ANY, ALL, UNIFORM, MATCH_ANY, MATCH_ALL,
    ADD, MIN, MAX, UNSIGNED_MIN, UNSIGNED_MAX, AND, OR, XOR, COUNT
};

// One lane's part in a warp collective: its value, and for a shuffle the lane it reads. Returns the lane's result.
CUDA_EMULATOR_EXPORT unsigned long long cuda_emulator_warp(
    Collective what, const char* name, unsigned mask, unsigned long long value, int source_lane, int line, const char* file);
CUDA_EMULATOR_EXPORT int cuda_emulator_block(Collective what, const char* name, int predicate, int line, const char* file);
CUDA_EMULATOR_EXPORT unsigned cuda_emulator_alive_lanes();
CUDA_EMULATOR_EXPORT int cuda_emulator_lane();
CUDA_EMULATOR_EXPORT void cuda_emulator_fence();
CUDA_EMULATOR_EXPORT long long cuda_emulator_clock();
CUDA_EMULATOR_EXPORT [[noreturn]] void cuda_emulator_trap(const char* what, int line, const char* file);

// Which lane a shuffle reads, as PTX defines shfl: only five bits of the operand count, a lane past the end of its segment
// (`width` lanes) is replaced by the reader itself, and a butterfly may reach into a lower segment.
enum class Shuffle { INDEX, UP, DOWN, BUTTERFLY };

inline int shuffle_source(Shuffle mode, int lane, unsigned operand, int width) {
    const int step = int(operand & 31u);
    const int first = lane & ~(width - 1), last = first + width - 1;
    switch (mode) {
        case Shuffle::INDEX: return first | (step & (width - 1));
        case Shuffle::UP: return lane - step < first ? lane : lane - step;
        case Shuffle::DOWN: return lane + step > last ? lane : lane + step;
        default: return (lane ^ step) > last ? lane : lane ^ step;
    }
}

template <class T>
inline T shuffle(Shuffle mode, const char* name, unsigned mask, T value, unsigned operand, int width, int line, const char* file) {
    if (width < 1 || width > 32 || (width & (width - 1))) cuda_emulator_trap("shuffle width is no power of two up to 32", line, file);
    unsigned long long bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    bits = cuda_emulator_warp(SHUFFLE, name, mask, bits, shuffle_source(mode, cuda_emulator_lane(), operand, width), line, file);
    __builtin_memcpy(&value, &bits, sizeof(T));
    return value;
}

}  // namespace cuda_emulator

static inline void __syncthreads(CUDA_EMULATOR_SITE) {
    cuda_emulator::cuda_emulator_block(cuda_emulator::SYNC, "__syncthreads", 0, line, file);
}
static inline int __syncthreads_count(int predicate, CUDA_EMULATOR_SITE) {
    return cuda_emulator::cuda_emulator_block(cuda_emulator::COUNT, "__syncthreads_count", predicate, line, file);
}
static inline int __syncthreads_or(int predicate, CUDA_EMULATOR_SITE) {
    return cuda_emulator::cuda_emulator_block(cuda_emulator::OR, "__syncthreads_or", predicate, line, file);
}
static inline int __syncthreads_and(int predicate, CUDA_EMULATOR_SITE) {
    return cuda_emulator::cuda_emulator_block(cuda_emulator::AND, "__syncthreads_and", predicate, line, file);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_EMULATOR_SITE) {
    cuda_emulator::cuda_emulator_warp(cuda_emulator::SYNC, "__syncwarp", mask, 0, 0, line, file);
}

// The lanes that have not returned: the widest answer a GPU may give. Code that is right only for a narrower one is wrong.
static inline unsigned __activemask() { return cuda_emulator::cuda_emulator_alive_lanes(); }

#define CUDA_EMULATOR_SHUFFLES(T)                                                                                           \
    static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, CUDA_EMULATOR_SITE) {                     \
        return cuda_emulator::shuffle(cuda_emulator::Shuffle::INDEX, "__shfl_sync", mask, value, unsigned(lane), width, line, file); \
    }                                                                                                                       \
    static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_EMULATOR_SITE) {            \
        return cuda_emulator::shuffle(cuda_emulator::Shuffle::UP, "__shfl_up_sync", mask, value, delta, width, line, file); \
    }                                                                                                                       \
    static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_EMULATOR_SITE) {          \
        return cuda_emulator::shuffle(cuda_emulator::Shuffle::DOWN, "__shfl_down_sync", mask, value, delta, width, line, file); \
    }                                                                                                                       \
    static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, CUDA_EMULATOR_SITE) {                \
        return cuda_emulator::shuffle(cuda_emulator::Shuffle::BUTTERFLY, "__shfl_xor_sync", mask, value, unsigned(lanes), width, line, file); \
    }
CUDA_EMULATOR_SHUFFLES(int)
CUDA_EMULATOR_SHUFFLES(unsigned)
CUDA_EMULATOR_SHUFFLES(long)
CUDA_EMULATOR_SHUFFLES(unsigned long)
CUDA_EMULATOR_SHUFFLES(long long)
CUDA_EMULATOR_SHUFFLES(unsigned long long)
CUDA_EMULATOR_SHUFFLES(float)
CUDA_EMULATOR_SHUFFLES(double)

#define CUDA_EMULATOR_VOTE(RESULT, NAME, WHAT)                                                                                   \
    static inline RESULT NAME(unsigned mask, int predicate, CUDA_EMULATOR_SITE) {                                                \
        return RESULT(cuda_emulator::cuda_emulator_warp(cuda_emulator::WHAT, #NAME, mask, predicate != 0, 0, line, file));       \
    }
CUDA_EMULATOR_VOTE(unsigned, __ballot_sync, BALLOT)
CUDA_EMULATOR_VOTE(int, __any_sync, ANY)
CUDA_EMULATOR_VOTE(int, __all_sync, ALL)
CUDA_EMULATOR_VOTE(int, __uni_sync, UNIFORM)
#undef CUDA_EMULATOR_VOTE

#define CUDA_EMULATOR_REDUCTION(T, NAME, WHAT)                                                                             \
    static inline T NAME(unsigned mask, T value, CUDA_EMULATOR_SITE) {                                                     \
        return T(cuda_emulator::cuda_emulator_warp(cuda_emulator::WHAT, #NAME, mask, unsigned(value), 0, line, file));     \
    }
CUDA_EMULATOR_REDUCTION(int, __reduce_add_sync, ADD)
CUDA_EMULATOR_REDUCTION(unsigned, __reduce_add_sync, ADD)
CUDA_EMULATOR_REDUCTION(int, __reduce_min_sync, MIN)
CUDA_EMULATOR_REDUCTION(unsigned, __reduce_min_sync, UNSIGNED_MIN)
CUDA_EMULATOR_REDUCTION(int, __reduce_max_sync, MAX)
CUDA_EMULATOR_REDUCTION(unsigned, __reduce_max_sync, UNSIGNED_MAX)
CUDA_EMULATOR_REDUCTION(unsigned, __reduce_and_sync, AND)
CUDA_EMULATOR_REDUCTION(unsigned, __reduce_or_sync, OR)
CUDA_EMULATOR_REDUCTION(unsigned, __reduce_xor_sync, XOR)
#undef CUDA_EMULATOR_REDUCTION

namespace cuda_emulator {

template <class T>
inline unsigned match(Collective what, const char* name, unsigned mask, T value, int line, const char* file) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "__match_*_sync takes values of 4 or 8 bytes");
    unsigned long long bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    return unsigned(cuda_emulator_warp(what, name, mask, bits, 0, line, file));
}

}  // namespace cuda_emulator

template <class T>
static inline unsigned __match_any_sync(unsigned mask, T value, CUDA_EMULATOR_SITE) {
    return cuda_emulator::match(cuda_emulator::MATCH_ANY, "__match_any_sync", mask, value, line, file);
}
template <class T>
static inline unsigned __match_all_sync(unsigned mask, T value, int* predicate, CUDA_EMULATOR_SITE) {
    const unsigned lanes = cuda_emulator::match(cuda_emulator::MATCH_ALL, "__match_all_sync", mask, value, line, file);
    *predicate = lanes != 0;
    return lanes;
}
