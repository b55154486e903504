// Answers the calls that g++ -fsanitize=undefined plants: each ends the launch and says what was undefined.
#include <cstdio>

#include "execution_state.h"

namespace cuda_emulator {

namespace {

// What the compiler passes first to every handler. The place in it is not used: for code of our own headers it is a line there,
// while the instruction leads to the kernel's line.
struct Location {
    const char* file;
    uint32_t line, column;
};

struct Type {
    uint16_t kind, details;
    char name[1];
};

struct Mismatch {
    Location location;
    const Type* type;
    unsigned char alignment_bits, access;
};

struct OutOfBounds {
    Location location;
    const Type* array;
    const Type* index;
};

[[noreturn]] void report(const std::string& what, const void* return_address) {
    fail(what + ", at " + source_line(call_before(return_address)));
}

}  // namespace

}  // namespace cuda_emulator

using namespace cuda_emulator;

#define HANDLER(NAME, WHAT) \
    CUDA_EMULATOR_EXPORT void __ubsan_handle_##NAME(void*) { report("undefined behaviour: " WHAT, __builtin_return_address(0)); }

HANDLER(add_overflow_abort, "an integer sum overflows")
HANDLER(sub_overflow_abort, "an integer difference overflows")
HANDLER(mul_overflow_abort, "an integer product overflows")
HANDLER(negate_overflow_abort, "an integer's negative overflows")
HANDLER(divrem_overflow_abort, "integer division by zero, or its quotient overflows")
HANDLER(shift_out_of_bounds_abort, "a shift by more than the bits there are, or of a negative number")
HANDLER(float_cast_overflow_abort, "a floating-point number does not fit the integer it is cast to")
HANDLER(load_invalid_value_abort, "a bool or enum holds none of its values")
HANDLER(vla_bound_not_positive_abort, "an array's length is not positive")
HANDLER(pointer_overflow_abort, "pointer arithmetic wraps around")
HANDLER(builtin_unreachable, "unreachable code is reached")
HANDLER(missing_return, "a function that returns a value ends without one")

CUDA_EMULATOR_EXPORT void __ubsan_handle_type_mismatch_v1_abort(const Mismatch* data, uintptr_t address) {
    const int alignment = 1 << data->alignment_bits;
    if (!address) report(std::string("null pointer to ") + data->type->name, __builtin_return_address(0));
    if (address % alignment == 0) report(std::string("no object of type ") + data->type->name + " is there", __builtin_return_address(0));
    report("misaligned address: " + std::to_string(address % alignment) + " bytes past a multiple of " + std::to_string(alignment) +
               ", which " + data->type->name + " needs", __builtin_return_address(0));
}

CUDA_EMULATOR_EXPORT void __ubsan_handle_out_of_bounds_abort(const OutOfBounds* data, uintptr_t index) {
    report("out of bounds: index " + std::to_string(static_cast<long long>(index)) + " of an array of type " + data->array->name, __builtin_return_address(0));
}
