"""What a launch is given: grids, shared memory and arguments that fit, or an error that says which does not."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cuda_emulator import EmulatorError, RawModule, require

require()

SOURCE = (Path(__file__).parent / "kernels" / "launches.cu").read_text()
NAMES = ["scale<float>", "scale<double>", "scale<int>", "scale<__half>"]
PAIR = np.dtype([("first", np.int32), ("second", np.float32)])
EXTERN = (
    "coordinates",
    "through_dynamic_shared",
    "all_widths",
    "take_bfloat16",
    "is_null",
    "last_block_adds",
    "histogram",
)


@pytest.fixture(scope="module")
def module():
    return RawModule(code=SOURCE, name_expressions=[*NAMES, *EXTERN], mode="plain", order="forward")


@pytest.fixture(scope="module")
def checked():
    return RawModule(code=SOURCE, name_expressions=[*NAMES, *EXTERN], mode="thread", order="forward")


@pytest.mark.parametrize(
    ("grid", "block"), [((3, 2, 4), (5, 3, 2)), ((7,), (33,)), ((2, 5), (8, 4)), ((1, 1, 1), (1, 1, 64))]
)
@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_every_thread_of_a_grid_runs_once_with_its_own_indices(grid, block, order):
    full_grid, full_block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
    out = np.full((np.prod(full_grid), np.prod(full_block), 6), -1, np.int32)
    RawModule(code=SOURCE, name_expressions=["coordinates"], order=order).get_function("coordinates")(
        grid, block, (out,)
    )
    for (b, (bz, by, bx)), (t, (tz, ty, tx)) in itertools.product(
        enumerate(np.ndindex(full_grid[::-1])), enumerate(np.ndindex(full_block[::-1]))
    ):
        assert out[b, t].tolist() == [bx, by, bz, tx, ty, tz]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.float16])
def test_templates_are_found_by_their_name_expressions(module, dtype):
    name = {"float32": "float", "float64": "double", "int32": "int", "float16": "__half"}[np.dtype(dtype).name]
    x, y = np.arange(1000).astype(dtype), np.zeros(1000, dtype)
    module.get_function(f"scale<{name}>")((4,), (256,), (x, y, np.int64(1000), dtype(3)))
    assert np.array_equal(y, x * dtype(3))


@pytest.mark.parametrize("kilobytes", [1, 48, 100, 227])
def test_dynamic_shared_memory_up_to_the_largest_there_is(module, kilobytes):
    kernel = module.get_function("through_dynamic_shared")
    n = kilobytes * 256
    x, y = np.arange(n, dtype=np.float32), np.zeros(n, np.float32)
    if kilobytes > 48:
        kernel.max_dynamic_shared_size_bytes = 48 * 1024
        with pytest.raises(
            EmulatorError, match=rf"shared_mem = {4 * n} bytes, allowed are 49152 .*max_dynamic_shared_size_bytes"
        ):
            kernel((1,), (256,), (x, y, np.int32(n)), shared_mem=4 * n)
    kernel.max_dynamic_shared_size_bytes = max(48, kilobytes) * 1024
    kernel((1,), (256,), (x, y, np.int32(n)), shared_mem=4 * n)
    assert np.array_equal(y, x[::-1])
    with pytest.raises(EmulatorError, match="a block has 232448"):
        kernel.max_dynamic_shared_size_bytes = 228 * 1024


def test_arguments_by_value_of_every_width(module):
    out = np.zeros(10)
    pair = np.array((9, 10.5), PAIR)
    values = (
        np.int8(-1),
        np.uint16(65535),
        np.int32(-3),
        np.int64(2**40),
        np.float16(0.5),
        np.float32(1.5),
        np.float64(2.5),
        np.bool_(True),
        pair,
    )
    module.get_function("all_widths")((1,), (1,), (*values, out))
    assert out.tolist() == [-1, 65535, -3, 2**40, 0.5, 1.5, 2.5, 1, 9, 10.5]


GOOD: dict[str, Any] = {
    "x": np.zeros(8, np.float32),
    "y": np.zeros(8, np.float32),
    "n": np.int64(8),
    "factor": np.float32(2),
}
READ_ONLY = np.zeros(8, np.float32)
READ_ONLY.flags.writeable = False
WRONG_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "python float for float": (
        {"factor": 2.0},
        r"parameter 3 is 'float': float64 2.0 came \(8 bytes\); a Python float .*; it takes 4 bytes",
    ),
    "int32 for long long": (
        {"n": np.int32(8)},
        r"parameter 2 is 'long long int': int32 .* came \(4 bytes\); it takes 8 bytes",
    ),
    "float for an integer": ({"n": np.float64(8)}, "parameter 2 is 'long long int': float64 .* another kind of number"),
    "integer for a float": ({"factor": np.int32(2)}, "parameter 3 is 'float': int32 .* another kind of number"),
    "number too large": ({"n": np.uint64(2**63)}, "parameter 2 .* does not hold that number"),
    "array for a number": (
        {"n": np.zeros(1, np.int64)},
        "parameter 2 .* an array of int64, shape .* one value is taken",
    ),
    "other dtype": (
        {"x": np.zeros(8)},
        r"parameter 0 is 'const float\*': an array of float64, shape \(8,\) came; its dtype is another",
    ),
    "integers for floats": ({"x": np.zeros(8, np.int32)}, "parameter 0 .* int32"),
    "strided": ({"x": np.zeros(16, np.float32)[::2]}, r"parameter 0 .* strides \(8,\); .* make it C-contiguous"),
    "transposed": ({"y": np.zeros((4, 2), np.float32).T}, r"parameter 1 .* strides"),
    "read-only output": ({"y": READ_ONLY}, r"parameter 1 is 'float\*': .* read-only"),
    "number for a pointer": ({"x": np.float32(0)}, r"parameter 0 .* an address has 8 bytes"),
    "none": ({"x": None}, r"parameter 0 .* None came; .* np.intp\(0\)"),
    "list": ({"x": [0.0] * 8}, "parameter 0 .* list came, which no kernel takes"),
    "other byte order": ({"x": np.zeros(8, ">f4")}, "parameter 0 .* other byte order"),
}


@pytest.mark.parametrize("case", WRONG_ARGUMENTS)
def test_an_argument_that_does_not_fit_is_named(module, case):
    change, message = WRONG_ARGUMENTS[case]
    with pytest.raises(EmulatorError, match=f"kernel scale<float>: {message}"):
        module.get_function("scale<float>")((1,), (8,), tuple((GOOD | change).values()))


def test_the_same_arguments_unchanged_are_taken(module):
    module.get_function("scale<float>")((1,), (8,), tuple((GOOD | {"x": READ_ONLY}).values()))


def test_the_number_of_arguments_is_checked(module):
    with pytest.raises(
        EmulatorError, match=r"2 arguments came for 4 parameters \(const float\*, float\*, long long int, float\)"
    ):
        module.get_function("scale<float>")((1,), (8,), (GOOD["x"], GOOD["y"]))


def test_bfloat16_and_untyped_pointers(module):
    kernel = module.get_function("take_bfloat16")
    kernel((1,), (1,), (np.zeros(4, np.uint16), np.zeros(3, np.int8), np.zeros((2, 2), np.float32)))
    with pytest.raises(EmulatorError, match="parameter 0 is 'const __nv_bfloat16\\*': an array of float16"):
        kernel((1,), (1,), (np.zeros(4, np.float16), np.zeros(3, np.int8), np.zeros((2, 2), np.float32)))
    with pytest.raises(EmulatorError, match="parameter 2 is 'float2\\*': an array of float64"):
        kernel((1,), (1,), (np.zeros(4, np.uint16), np.zeros(3, np.int8), np.zeros((2, 2))))


@pytest.mark.parametrize("zero", [np.intp(0), np.uintp(0), 0])
def test_a_null_pointer_is_an_integer_of_eight_bytes(module, zero):
    out = np.zeros(1, np.int32)
    module.get_function("is_null")((1,), (1,), (zero, out))
    assert out[0] == 1


def test_an_address_as_a_number_cannot_be_checked(module, checked):
    x, out = np.zeros(1, np.float32), np.ones(1, np.int32)
    module.get_function("is_null")((1,), (1,), (np.uintp(x.ctypes.data), out))
    assert out[0] == 0
    with pytest.raises(EmulatorError, match="an address was passed as a number"):
        checked.get_function("is_null")((1,), (1,), (np.uintp(x.ctypes.data), out))


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        ((1,), (1025,), "block .* has x = 1025, allowed are 1 to 1024"),
        ((1,), (32, 33), "has 1056 threads, allowed are 1024"),
        ((1,), (1, 1, 65), "block .* has z = 65"),
        ((0,), (32,), "grid .* has x = 0"),
        ((65536, 65535), (32,), "the emulator counts to 2147483647"),
        ((1, 65536), (32,), "grid .* has y = 65536, allowed are 1 to 65535"),
        ((1,), (32, 0), "block .* has y = 0"),
        ((1, 1, 1, 1), (32,), "no tuple of one to three"),
        (1, (32,), "no tuple of one to three"),
    ],
)
def test_launches_beyond_the_devices_limits_are_refused(module, grid, block, message):
    with pytest.raises(EmulatorError, match=f"kernel scale<float>: .*{message}"):
        module.get_function("scale<float>")(grid, block, tuple(GOOD.values()))


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("mode", ["plain", "thread"])
def test_the_last_block_sees_what_fenced_blocks_wrote(mode, order):
    x, partial, total = np.arange(5, dtype=np.float32), np.zeros(5, np.float32), np.zeros(1, np.float32)
    kernel = RawModule(code=SOURCE, name_expressions=["last_block_adds"], mode=mode, order=order).get_function(
        "last_block_adds"
    )
    for _ in range(2):
        kernel((5,), (32,), (x, partial, total, np.int32(1)))
        assert total[0] == 10


def test_without_a_fence_the_last_block_races(checked):
    arrays = np.arange(5, dtype=np.float32), np.zeros(5, np.float32), np.zeros(1, np.float32)
    with pytest.raises(
        EmulatorError, match=r"data race in parameter 1 .* of block \(0, 0, 0\) wrote at .* blocks are not ordered"
    ):
        checked.get_function("last_block_adds")((5,), (32,), (*arrays, np.int32(0)))


def test_atomics_do_not_race(checked):
    x = (np.arange(128) % 4 % 3).astype(np.int32)
    counts, total = np.zeros(4, np.int32), np.zeros(1, np.float32)
    checked.get_function("histogram")((3,), (128,), (x, counts, total))
    assert counts.tolist() == np.bincount(x, minlength=4).tolist()
    assert total[0] == 3 * 128


def test_arrays_that_share_memory_stay_together_when_checked(checked):
    memory = np.arange(24, dtype=np.float32)
    kernel = checked.get_function("scale<float>")
    kernel((1,), (8,), (memory[8:16], memory[8:16], np.int64(8), np.float32(2)))
    assert memory.tolist() == [*range(8), *range(16, 32, 2), *range(16, 24)]
    with pytest.raises(EmulatorError, match="out of bounds: reads 4 bytes at byte 32 of parameter 0"):
        kernel((1,), (32,), (memory[:8], memory[8:], np.int64(9), np.float32(2)))
