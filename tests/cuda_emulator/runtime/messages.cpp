// What an error says: who waits where.
#include <cstdio>
#include <utility>
#include <vector>

#include <dlfcn.h>

#include "execution_state.h"

namespace cuda_emulator {

namespace {

// "0-31, 64, 70-72"
std::string ranges(const std::vector<int>& numbers) {
    std::string text;
    for (size_t i = 0; i < numbers.size();) {
        size_t last = i;
        while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
        text += (i ? ", " : "") + std::to_string(numbers[i]);
        if (last > i) text += "-" + std::to_string(numbers[last]);
        i = last + 1;
    }
    return text;
}

std::string collective_of(const Thread& thread) {
    const Warp& warp = warp_of(thread);
    const Group* group = warp.groups;
    while (!(group->arrived & bit_of(thread))) ++group;
    return describe(group->site) + " with mask " + lanes_of(group->mask);
}

std::string state_of(const Thread& thread) {
    if (warp_of(thread).ready & bit_of(thread)) return thread.context || &thread == running ? "could run on" : "have not started";
    switch (thread.waiting) {
        case Waiting::AT_COLLECTIVE: return "at " + collective_of(thread);
        case Waiting::AT_BARRIER: return "at " + describe(thread.barrier);
        default: return "have returned";
    }
}

}  // namespace

std::string describe(const Site& site) { return std::string(site.name) + " (" + site.file + ":" + std::to_string(site.line) + ")"; }

std::string lanes_of(unsigned mask) {
    char text[16];
    snprintf(text, sizeof text, "0x%08x", mask);
    return text;
}

std::string source_line(const void* instruction) {
    Dl_info object;
    if (!dladdr(instruction, &object) || !object.dli_fname) return "an unknown line";
    char offset[32];
    snprintf(offset, sizeof offset, "+%zx>", size_t(uintptr_t(instruction) - uintptr_t(object.dli_fbase)));
    return std::string("<") + object.dli_fname + offset;
}

std::string shared_variable(uintptr_t address) {
    Dl_info object;
    if (!dladdr(reinterpret_cast<void*>(launch.kernel->run), &object) || !object.dli_fname) return "(unknown)";
    char offset[32];
    snprintf(offset, sizeof offset, "%%%zx>", size_t(address - shared_begin));
    return std::string("<") + object.dli_fname + offset;
}

std::string where_threads_are() {
    std::vector<std::pair<std::string, std::vector<int>>> groups;
    for (int t = 0; t < block.threads; ++t) {
        const std::string state = state_of(threads[t]);
        size_t i = 0;
        while (i < groups.size() && groups[i].first != state) ++i;
        if (i == groups.size()) groups.emplace_back(state, std::vector<int>());
        groups[i].second.push_back(t);
    }
    std::string text;
    for (const auto& [state, members] : groups) {
        text += "  thread" + std::string(members.size() > 1 ? "s " : " ") + ranges(members) + " " + state + "\n";
    }
    return text;
}

}  // namespace cuda_emulator
