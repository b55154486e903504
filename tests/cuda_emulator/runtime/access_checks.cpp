// Answers the calls that g++ -fsanitize=thread plants at every access to memory: is it memory of this kernel, and if races are
// looked for, has another thread touched it with nothing between the two that orders them?
//
// Ordered are: accesses of one thread; of a block's threads with a __syncthreads between them; of a warp's lanes with a collective of
// both (or a chain of such) between them; of two blocks if the first one made a __threadfence and then an atomic, and the second an atomic.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <link.h>
#include <sys/mman.h>

#include "execution_state.h"

namespace cuda_emulator {

namespace {

enum Kind : uint8_t { READ = 0, WRITE = 1, ATOMIC = 2 };

struct Access {
    uint32_t block_plus_one;  // zero: no access
    uint32_t clock, epoch, fence;
    uint32_t instruction;  // relative to the module
    uint16_t thread;
    uint8_t bytes;  // of the cell, as a mask
    uint8_t kind;
};

// The accesses to four bytes that a later one may still conflict with.
struct Cell {
    static constexpr int KEPT = 6;
    Access accesses[KEPT];
};

struct CheckedRegion {
    Region extent;
    Cell* cells;
    size_t bytes;  // of the cells
};

// Cells of an array of gigabytes are more than there is memory, and mostly never touched: they are mapped without a promise of it.
constexpr size_t MAPPED = size_t(1) << 28;

Cell* new_cells(size_t bytes) {
    if (bytes < MAPPED) return static_cast<Cell*>(calloc(bytes, 1));
    void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<Cell*>(memory);
}

void delete_cells(const CheckedRegion& region) {
    if (region.bytes < MAPPED) free(region.cells);
    else munmap(region.cells, region.bytes);
}

enum : int { STATIC_SHARED = -1, DYNAMIC_SHARED = -2, DEVICE_VARIABLES = -3 };

struct Image {
    uintptr_t inside, begin, end;
};

bool checking = false;
std::vector<CheckedRegion> regions;
size_t last_region;
Image runtime_image, module_image;

uint32_t clock_of[MAX_THREADS], seen_by[MAX_THREADS][WARP];
uint32_t fences, fence_of_block;
bool block_has_acquired;
std::vector<uint32_t> released;  // by block: the fence before its latest atomic

int find_image(dl_phdr_info* info, size_t, void* found) {
    auto& image = *static_cast<Image*>(found);
    image.begin = ~uintptr_t(0), image.end = 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const auto& segment = info->dlpi_phdr[i];
        if (segment.p_type != PT_LOAD) continue;
        const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
        if (begin < image.begin) image.begin = begin;
        if (begin + segment.p_memsz > image.end) image.end = begin + segment.p_memsz;
    }
    return image.inside >= image.begin && image.inside < image.end;
}

void locate(Image& image, uintptr_t inside) {
    if (image.inside == inside) return;
    image.inside = inside;
    dl_iterate_phdr(find_image, &image);
}

void add_region(uintptr_t begin, uintptr_t end, bool writable, int argument) {
    if (begin == end) return;
    Cell* cells = nullptr;
    const size_t bytes = ((end - begin) / 4 + 2) * sizeof(Cell);
    if (launch.check == Check::MEMORY_AND_RACES) {
        cells = new_cells(bytes);
        if (!cells) abort();
    }
    regions.push_back({{begin, end, writable, argument}, cells, cells ? bytes : 0});
}

std::string name_of(const Region& region, uintptr_t address) {
    switch (region.argument) {
        case STATIC_SHARED: return "shared memory " + shared_variable(address);
        case DYNAMIC_SHARED: return "dynamic shared memory (shared_mem = " + std::to_string(launch.shared_bytes) + ")";
        case DEVICE_VARIABLES: return "a __device__ variable";
    }
    return "parameter " + std::to_string(region.argument) + " (" + std::to_string(region.end - region.begin) + " bytes)";
}

std::string thread_name(int thread, unsigned block_number) {
    const uint3& i = threads[thread].index;
    char text[120];
    int n = snprintf(text, sizeof text, "thread (%u, %u, %u)", i.x, i.y, i.z);
    if (block_number != block.index) {
        const unsigned x = launch.grid[0], y = launch.grid[1];
        snprintf(text + n, sizeof text - n, " of block (%u, %u, %u)", block_number % x, block_number / x % y, block_number / x / y);
    }
    return text;
}

const char* verb(uint8_t kind, bool past) {
    if (kind & ATOMIC) return past ? "updated it atomically" : "updates it atomically";
    return kind & WRITE ? (past ? "wrote" : "writes") : (past ? "read" : "reads");
}

[[noreturn]] void out_of_bounds(uintptr_t address, size_t size, uint8_t kind, const void* instruction) {
    const Region* nearest = nullptr;
    size_t least = 1 << 20;
    for (const auto& region : regions) {
        const Region& extent = region.extent;
        if (extent.argument == DEVICE_VARIABLES) continue;
        const size_t distance = address >= extent.begin ? (address + size > extent.end ? address + size - extent.end : 0) : extent.begin - address;
        if (distance < least) least = distance, nearest = &extent;
    }
    std::string place = "at no memory of this launch";
    if (nearest && address >= nearest->begin) {
        place = "at byte " + std::to_string(address - nearest->begin) + " of " + name_of(*nearest, address) + ", past its end";
    } else if (nearest) {
        place = std::to_string(nearest->begin - address) + " bytes before " + name_of(*nearest, address);
    }
    for (int t = 0; t < block.threads && (!nearest || least > 64); ++t) {
        if (threads[t].context && on_stack(threads[t].stack, address)) place = "in local memory of thread " + std::to_string(t);
    }
    fail(std::string("out of bounds: ") + verb(kind, false) + " " + std::to_string(size) + " bytes " + place + ", at " + source_line(instruction));
}

bool ordered(const Access& earlier, const Access& now) {
    if (earlier.block_plus_one != now.block_plus_one) return block_has_acquired && released[earlier.block_plus_one - 1] > earlier.fence;
    if (earlier.thread == now.thread || earlier.epoch < now.epoch) return true;
    return earlier.thread / WARP == now.thread / WARP && seen_by[now.thread][earlier.thread % WARP] >= earlier.clock;
}

[[noreturn]] void race(const CheckedRegion& region, size_t offset, const Access& earlier, const Access& now) {
    const auto at = [](const Access& access) { return source_line(reinterpret_cast<void*>(module_image.begin + access.instruction)); };
    const bool same_block = earlier.block_plus_one == now.block_plus_one;
    fail("data race in " + name_of(region.extent, region.extent.begin + offset) + ": " + thread_name(now.thread, block.index) + " " +
         verb(now.kind, false) + " at " + at(now) + ", " + thread_name(earlier.thread, earlier.block_plus_one - 1) + " " +
         verb(earlier.kind, true) + " at " + at(earlier) + (same_block ? ", and no barrier is between them" : ", and blocks are not ordered"));
}

void remember(const CheckedRegion& region, Cell& cell, size_t offset, const Access& now) {
    Access* place = nullptr;
    for (Access& earlier : cell.accesses) {
        const bool stale = !earlier.block_plus_one || (region.extent.argument < 0 && region.extent.argument != DEVICE_VARIABLES &&
                                                       earlier.block_plus_one != now.block_plus_one);
        if (stale) {
            if (!place) place = &earlier;
            continue;
        }
        if (!(earlier.bytes & now.bytes)) continue;
        const bool before = ordered(earlier, now);
        const bool conflict = (earlier.kind | now.kind) & WRITE && !(earlier.kind & now.kind & ATOMIC);
        if (conflict && !before) race(region, offset, earlier, now);
        // Whoever conflicts with the earlier access conflicts with this one too, so that this one may take its place.
        const bool implied = before && (earlier.bytes & ~now.bytes) == 0 && (now.kind == earlier.kind || now.kind == WRITE);
        if (implied) {
            if (place && place != &earlier) earlier.block_plus_one = 0;
            else place = &earlier;
        }
    }
    if (!place) {
        // Full of reads by threads that nothing orders: a write that conflicts with any one of the others is still seen.
        for (Access& earlier : cell.accesses) {
            if (!place && earlier.kind == READ) place = &earlier;
        }
        if (!place) place = &cell.accesses[now.thread % Cell::KEPT];
    }
    *place = now;
}

void check(uintptr_t address, size_t size, uint8_t kind, const void* instruction) {
    if (!checking || on_stack(running->stack, address)) return;
    if (address >= runtime_image.begin && address < runtime_image.end) return;
    const auto holds = [&](const CheckedRegion& region) { return address >= region.extent.begin && address + size <= region.extent.end; };
    if (!holds(regions[last_region])) {
        size_t i = 0;
        while (i < regions.size() && !holds(regions[i])) ++i;
        if (i == regions.size()) out_of_bounds(address, size, kind, instruction);
        last_region = i;
    }
    const CheckedRegion& region = regions[last_region];
    if (kind & WRITE && !region.extent.writable) {
        fail("write to read-only memory: " + name_of(region.extent, address) + " at byte " + std::to_string(address - region.extent.begin) + ", at " +
             source_line(instruction));
    }
    if (launch.check != Check::MEMORY_AND_RACES) return;

    Access now;
    now.block_plus_one = block.index + 1;
    now.thread = uint16_t(number_of(*running));
    now.clock = clock_of[now.thread];
    now.epoch = block.epoch;
    now.fence = fences;
    now.instruction = uint32_t(uintptr_t(instruction) - module_image.begin);
    now.kind = kind;
    // Cells lie on multiples of four bytes of the address, which a region's begin need not do.
    const uintptr_t origin = region.extent.begin & ~uintptr_t(3);
    for (uintptr_t word = address & ~uintptr_t(3); word < address + size; word += 4) {
        now.bytes = 0;
        for (uintptr_t byte = 0; byte < 4; ++byte) {
            if (word + byte >= address && word + byte < address + size) now.bytes |= uint8_t(1u << byte);
        }
        remember(region, region.cells[(word - origin) / 4], word - region.extent.begin, now);
    }
}

}  // namespace

void begin_checked_launch() {
    locate(runtime_image, uintptr_t(&threadIdx));
    locate(module_image, uintptr_t(launch.kernel->run));
    const uintptr_t dynamic = uintptr_t(launch.dynamic_shared());
    for (int i = 0; i < launch.region_count; ++i) {
        add_region(launch.regions[i].begin, launch.regions[i].end, launch.regions[i].writable, launch.regions[i].argument);
    }
    add_region(shared_begin, dynamic, true, STATIC_SHARED);
    add_region(dynamic, dynamic + launch.shared_bytes, true, DYNAMIC_SHARED);
    add_region(dynamic + launch.dynamic_shared_capacity, shared_end, true, STATIC_SHARED);
    add_region(module_image.begin, module_image.end, true, DEVICE_VARIABLES);
    last_region = 0;
    fences = 0;
    if (launch.check == Check::MEMORY_AND_RACES) released.assign(size_t(launch.grid[0]) * launch.grid[1] * launch.grid[2], 0);
    checking = true;
}

void begin_checked_block() {
    for (int t = 0; t < block.threads; ++t) clock_of[t] = 1;
    memset(seen_by, 0, sizeof *seen_by * size_t(block.threads));
    fence_of_block = 0;
    block_has_acquired = false;
}

void end_checked_launch() {
    checking = false;
    for (const auto& region : regions) delete_cells(region);
    regions.clear();
}

// A collective orders what its lanes did before it, and all that was ordered before that.
void order_lanes(int warp, unsigned group) {
    uint32_t joined[WARP] = {};
    const int first = warp * WARP;
    for (unsigned lanes = group; lanes; lanes &= lanes - 1) {
        const int lane = __builtin_ctz(lanes);
        for (int other = 0; other < WARP; ++other) {
            if (seen_by[first + lane][other] > joined[other]) joined[other] = seen_by[first + lane][other];
        }
    }
    for (unsigned lanes = group; lanes; lanes &= lanes - 1) joined[__builtin_ctz(lanes)] = clock_of[first + __builtin_ctz(lanes)]++;
    for (unsigned lanes = group; lanes; lanes &= lanes - 1) memcpy(seen_by[first + __builtin_ctz(lanes)], joined, sizeof joined);
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

CUDA_EMULATOR_EXPORT void cuda_emulator_fence() { fence_of_block = ++fences; }

CUDA_EMULATOR_EXPORT void cuda_emulator_atomic_access(const void* address, int bytes, const void* caller) {
    check(uintptr_t(address), size_t(bytes), WRITE | ATOMIC, call_before(caller));
    if (!checking || launch.check != Check::MEMORY_AND_RACES) return;
    block_has_acquired = true;
    if (fence_of_block) released[block.index] = fence_of_block;
}

#define HERE call_before(__builtin_return_address(0))
#define SIZED(BYTES)                                                                                                           \
    CUDA_EMULATOR_EXPORT void __tsan_read##BYTES(void* address) { check(uintptr_t(address), BYTES, READ, HERE); }              \
    CUDA_EMULATOR_EXPORT void __tsan_write##BYTES(void* address) { check(uintptr_t(address), BYTES, WRITE, HERE); }
SIZED(1)
SIZED(2)
SIZED(4)
SIZED(8)
SIZED(16)
CUDA_EMULATOR_EXPORT void __tsan_read_range(void* address, size_t size) { check(uintptr_t(address), size, READ, HERE); }
CUDA_EMULATOR_EXPORT void __tsan_write_range(void* address, size_t size) { check(uintptr_t(address), size, WRITE, HERE); }
CUDA_EMULATOR_EXPORT void __tsan_vptr_update(void*, void*) {}
CUDA_EMULATOR_EXPORT void __tsan_func_entry(void*) {}
CUDA_EMULATOR_EXPORT void __tsan_func_exit() {}
CUDA_EMULATOR_EXPORT void __tsan_init() {}
