// Contexts that switch without the operating system: a CUDA thread that waits keeps its stack and lets another run.
#pragma once

#include <cstdint>

namespace cuda_emulator {

// Saves the caller's context and continues another, until something continues the caller's.
void switch_context(void** save, void* load);
// A context that will run `entry` on stack number `stack`.
void* new_context(int stack, void (*entry)());

int take_stack();
void release_stack(int stack);
void release_all_stacks();

}  // namespace cuda_emulator
