// Barriers of a block and collectives of a warp. A lane leaves its value and waits; the last one to arrive works out what
// every lane gets.
#include <cstring>

#include "execution_state.h"

namespace cuda_emulator {

namespace {

unsigned long long combine(Collective what, unsigned a, unsigned b) {
    switch (what) {
        case ADD: return a + b;
        case MIN: return int(a) < int(b) ? a : b;
        case MAX: return int(a) > int(b) ? a : b;
        case UNSIGNED_MIN: return a < b ? a : b;
        case UNSIGNED_MAX: return a > b ? a : b;
        case AND: return a & b;
        case OR: return a | b;
        default: return a ^ b;
    }
}

template <class Each> void for_each_lane(unsigned lanes, Each each) {
    for (; lanes; lanes &= lanes - 1) each(__builtin_ctz(lanes));
}

// Kept apart, so that the way of all other lanes stays short.
[[noreturn, gnu::cold, gnu::noinline]] void refuse_mask(unsigned mask, const Site& site) {
    fail("wrong warp mask: lane " + std::to_string(running->lane) + " calls " + describe(site) + " with mask " + lanes_of(mask) +
         ", which leaves it out");
}

[[noreturn, gnu::cold, gnu::noinline]] void refuse_call(const Site& site) {
    fail("wrong warp mask: lanes of one warp meet at different calls\n" + where_threads_are() + "  thread " +
         std::to_string(number_of(*running)) + " at " + describe(site) + " with the same mask");
}

[[noreturn, gnu::cold, gnu::noinline]] void refuse_source(Thread& reader, const Group& group) {
    running = &reader;
    const bool masked_out = !(group.mask >> reader.source_lane & 1);
    fail("wrong warp mask: lane " + std::to_string(reader.lane) + " reads lane " + std::to_string(reader.source_lane) +
         (masked_out ? ", which is not in mask " + lanes_of(group.mask) : ", which has returned or does not exist,") + " at " +
         describe(group.site));
}

[[noreturn, gnu::cold, gnu::noinline]] void refuse_barrier() {
    set_waiting(*running, Waiting::AT_BARRIER);
    fail("divergent barrier: threads of one block meet at different barriers\n" + where_threads_are());
}

void shuffle_values(Thread* lanes, const Group& group) {
    for_each_lane(group.arrived, [&](int lane) {
        Thread& t = lanes[lane];
        if (!(group.arrived >> t.source_lane & 1)) refuse_source(t, group);
        t.result = lanes[t.source_lane].value;
    });
}

// Gives every lane of the group its result, and lets it run on.
[[gnu::noinline]] void complete(Warp& warp, Group& all_here) {
    const unsigned group = all_here.arrived;
    const Collective what = all_here.what;
    Thread* lanes = &threads[(&warp - warps) * WARP];
    const Thread& one = lanes[__builtin_ctz(group)];
    unsigned votes = 0;
    unsigned long long reduced = one.value;
    bool alike = true;
    switch (what) {
        case SYNC: break;
        case SHUFFLE: shuffle_values(lanes, all_here); break;
        case BALLOT: case ANY: case ALL: case UNIFORM:
            for_each_lane(group, [&](int lane) { votes |= unsigned(lanes[lane].value) << lane; });
            for_each_lane(group, [&](int lane) {
                lanes[lane].result = what == BALLOT ? votes : what == ANY ? votes != 0 : what == ALL ? votes == group
                                   : votes == 0 || votes == group;
            });
            break;
        case MATCH_ANY:
            for_each_lane(group, [&](int lane) {
                lanes[lane].result = 0;
                for_each_lane(group, [&](int other) {
                    if (lanes[other].value == lanes[lane].value) lanes[lane].result |= 1u << other;
                });
            });
            break;
        case MATCH_ALL:
            for_each_lane(group, [&](int lane) { alike &= lanes[lane].value == one.value; });
            for_each_lane(group, [&](int lane) { lanes[lane].result = alike ? group : 0; });
            break;
        default:
            for_each_lane(group & (group - 1), [&](int lane) { reduced = combine(what, unsigned(reduced), unsigned(lanes[lane].value)); });
            for_each_lane(group, [&](int lane) { lanes[lane].result = reduced; });
    }
    const Group* last = &warp.groups[--warp.group_count];
    if (last != &all_here) all_here = *last;
    set_ready(int(&warp - warps), group);
    if (launch.check == Check::MEMORY_AND_RACES) order_lanes(int(&warp - warps), group);
}

}  // namespace

// A lane that has returned is waited for no longer, as on a GPU; to read its value is an error.
void lane_exited(Warp& warp) {
    for (int i = warp.group_count - 1; i >= 0; --i) {
        if (warp.groups[i].arrived == (warp.groups[i].mask & warp.alive)) complete(warp, warp.groups[i]);
    }
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

CUDA_EMULATOR_EXPORT unsigned long long cuda_emulator_warp(
    Collective what, const char* name, unsigned mask, unsigned long long value, int source_lane, int line, const char* file) {
    Thread& self = *running;
    Warp& warp = warp_of(self);
    const Site site = {name, file, line};
    self.value = value;
    self.source_lane = source_lane;
    if (!(mask & bit_of(self))) refuse_mask(mask, site);
    Group* group = warp.groups;
    Group* const end = group + warp.group_count;
    while (group != end && group->mask != mask) ++group;
    if (group == end) {
        *group = {mask, 0, what, site};
        ++warp.group_count;
    } else if (group->what != what || group->site.differs(site)) {
        refuse_call(site);
    }
    group->arrived |= bit_of(self);
    if (group->arrived == (mask & warp.alive)) {
        complete(warp, *group);
    } else {
        set_waiting(self, Waiting::AT_COLLECTIVE);
    }
    run_others();
    return self.result;
}

CUDA_EMULATOR_EXPORT int cuda_emulator_block(Collective what, const char* name, int predicate, int line, const char* file) {
    Thread& self = *running;
    self.barrier = {name, file, line};
    if (block.arrived == 0) {
        block.barrier = self.barrier;
        block.count = 0;
    } else if (block.barrier.differs(self.barrier)) {
        refuse_barrier();
    }
    block.count += predicate != 0;
    set_waiting(self, Waiting::AT_BARRIER);
    if (++block.arrived == block.threads) {
        block.result = what == COUNT ? block.count : what == OR ? block.count > 0 : block.count == block.threads;
        block.arrived = 0;
        ++block.epoch;
        for (int w = 0; w * WARP < block.threads; ++w) set_ready(w, warps[w].alive);
    }
    run_others();
    return block.result;
}
