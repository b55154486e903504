#include "fibers.h"

#include <sys/mman.h>

#include <new>

#include "execution_state.h"

#if defined(__x86_64__) && !defined(CUDA_EMULATOR_PORTABLE_CONTEXTS)
#define SWITCH_IN_ASSEMBLY
#else
#include <ucontext.h>
#endif

namespace cuda_emulator {

namespace {

constexpr size_t STACK_BYTES = 64 * 1024, GUARD_BYTES = 4096;
// One more than the threads: the last one to finish still stands on its own stack when the next block starts.
constexpr int STACKS = MAX_THREADS + 1;

unsigned char* memory = nullptr;
int unused[STACKS], unused_count = 0;

unsigned char* base(int stack) { return memory + size_t(stack) * STACK_BYTES; }

// Stacks that began at equal offsets of a page would all compete for the same few sets of the first-level cache.
unsigned char* top(int stack) { return base(stack) + STACK_BYTES - size_t(stack % 61) * 64; }

void reserve() {
    void* p = mmap(nullptr, STACKS * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    memory = static_cast<unsigned char*>(p);
    for (int i = 0; i < STACKS; ++i) mprotect(base(i), GUARD_BYTES, PROT_NONE);
}

}  // namespace

int take_stack() { return unused[--unused_count]; }
void release_stack(int stack) { unused[unused_count++] = stack; }
void release_all_stacks() {
    if (!memory) reserve();
    for (unused_count = 0; unused_count < STACKS; ++unused_count) unused[unused_count] = STACKS - 1 - unused_count;
}

bool on_stack(int stack, uintptr_t address) { return address - uintptr_t(base(stack)) < STACK_BYTES; }
bool below_a_stack(uintptr_t address) {
    const uintptr_t offset = address - uintptr_t(memory);
    return memory && offset < STACKS * STACK_BYTES && offset % STACK_BYTES < GUARD_BYTES;
}

#ifdef SWITCH_IN_ASSEMBLY

// Only what the System V ABI makes a callee keep, pushed on the stack that is left.
asm(R"(
    .text
    .p2align 4
    .local cuda_emulator_switch
    .type cuda_emulator_switch, @function
cuda_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size cuda_emulator_switch, .-cuda_emulator_switch
)");
extern "C" __attribute__((visibility("hidden"))) void cuda_emulator_switch(void** save, void* load);

void switch_context(void** save, void* load) { cuda_emulator_switch(save, load); }

void* new_context(int stack, void (*entry)()) {
    // From the top: a slot that aligns the stack as a call would, the entry as return address, six registers.
    void** sp = reinterpret_cast<void**>(uintptr_t(top(stack)) & ~uintptr_t(15));
    *--sp = nullptr;
    *--sp = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--sp = nullptr;
    return sp;
}

#else

// Other processors switch by the C library, with a system call each time: slower, and the same results.
namespace {
ucontext_t contexts[STACKS], outside;
}

void switch_context(void** save, void* load) {
    // The launcher is the only one that is not on a stack of the pool.
    const uintptr_t here = uintptr_t(__builtin_frame_address(0)) - uintptr_t(memory);
    ucontext_t* self = here < STACKS * STACK_BYTES ? &contexts[here / STACK_BYTES] : &outside;
    *save = self;
    swapcontext(self, static_cast<ucontext_t*>(load));
}

void* new_context(int stack, void (*entry)()) {
    ucontext_t* context = &contexts[stack];
    getcontext(context);
    context->uc_stack.ss_sp = base(stack) + GUARD_BYTES;
    context->uc_stack.ss_size = top(stack) - base(stack) - GUARD_BYTES;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
    return context;
}

#endif

}  // namespace cuda_emulator
