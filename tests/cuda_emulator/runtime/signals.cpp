// Faults of the processor and the time limit become failures of the launch instead of the end of the process.
#include <csignal>
#include <cstring>
#include <ctime>
#include <sys/syscall.h>
#include <unistd.h>

#include "execution_state.h"

namespace cuda_emulator {

namespace {

constexpr int FAULTS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
constexpr int FAULT_COUNT = sizeof FAULTS / sizeof *FAULTS;
const int TIME_IS_UP = SIGRTMIN + 6;

struct sigaction faults_before[FAULT_COUNT], timer_before;
stack_t stack_before;
alignas(16) unsigned char handler_stack[64 * 1024];
timer_t timer;
volatile bool kernel_runs = false;

std::string fault(int signal, const siginfo_t* info) {
    const uintptr_t address = uintptr_t(info->si_addr);
    char text[160];
    switch (signal) {
        case SIGFPE: return "integer division by zero or overflow in a division";
        case SIGILL: return "illegal instruction";
        case SIGSEGV:
        case SIGBUS:
            if (below_a_stack(address)) return "local memory overflow: the thread's stack is exhausted";
            // A general protection fault carries no address: on x86-64 that is a misaligned vector, or an address out of all range.
            if (info->si_code == SI_KERNEL) return "misaligned address of a vector access, or no address at all";
            snprintf(text, sizeof text, "illegal address 0x%zx: nothing is mapped there (segmentation fault)", size_t(address));
            return text;
    }
    return "signal " + std::to_string(signal);
}

void* interrupted_at(void* context) {
#if defined(__x86_64__)
    return reinterpret_cast<void*>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
    return reinterpret_cast<void*>(static_cast<ucontext_t*>(context)->uc_mcontext.pc);
#else
    return nullptr;
#endif
}

// SA_NODEFER leaves the signal unblocked, so that leaving the handler by a switch of contexts loses nothing.
void handle(int signal, siginfo_t* info, void* context) {
    if (!kernel_runs) {
        // The time was up just as the kernel ended; a fault here is the runtime's own, and then it is the process's.
        if (signal != TIME_IS_UP) std::signal(signal, SIG_DFL);
        return;
    }
    const std::string at = " at " + source_line(interrupted_at(context));
    if (signal == TIME_IS_UP) {
        char limit[32];
        snprintf(limit, sizeof limit, "%g", launch.seconds);
        fail(std::string("no end after ") + limit + " s: a loop without end, or a wait for a block that has not started" +
             at + "\n" + where_threads_are());
    }
    fail(fault(signal, info) + at);
}

}  // namespace

void catch_signals(double seconds) {
    stack_t stack = {};
    stack.ss_sp = handler_stack;
    stack.ss_size = sizeof handler_stack;
    sigaltstack(&stack, &stack_before);
    struct sigaction action = {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < FAULT_COUNT; ++i) sigaction(FAULTS[i], &action, &faults_before[i]);
    sigaction(TIME_IS_UP, &action, &timer_before);

    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = TIME_IS_UP;
    event._sigev_un._tid = pid_t(syscall(SYS_gettid));
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    itimerspec limit = {};
    limit.it_value.tv_sec = time_t(seconds);
    limit.it_value.tv_nsec = long((seconds - double(limit.it_value.tv_sec)) * 1e9) + 1;
    timer_settime(timer, 0, &limit, nullptr);
    kernel_runs = true;
}

void release_signals() {
    kernel_runs = false;
    timer_delete(timer);
    for (int i = 0; i < FAULT_COUNT; ++i) sigaction(FAULTS[i], &faults_before[i], nullptr);
    sigaction(TIME_IS_UP, &timer_before, nullptr);
    sigaltstack(&stack_before, nullptr);
}

}  // namespace cuda_emulator
