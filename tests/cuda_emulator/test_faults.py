"""Each mistake that a GPU would punish, or worse would not: planted, it is caught by name; its healthy twin passes."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cuda_emulator import EmulatorError, RawModule, module, require
from tests.cuda_emulator.guarded import UNCOPIED

require()

SOURCES = {
    name: (Path(__file__).parent / "faults" / f"{name}.cu").read_text() for name in ("synchronisation", "memory")
}


def numbers(n: int) -> np.ndarray:
    return np.arange(1, n + 1, dtype=np.float32)


def zeros(n: int) -> np.ndarray:
    return np.zeros(n, np.float32)


@dataclass
class Fault:
    """A kernel template with a flag `healthy`, and what it says where that is false. `{words}`: the line so marked."""

    source: str
    kernel: str
    says: str
    args: Callable[[], tuple[Any, ...]] = lambda: (zeros(64),)
    block: int = 32
    grid: int = 1
    shared: int = 0
    modes: tuple[str, ...] = ("plain", "address", "thread")
    order: str = "forward"


CHECKED = ("address", "thread")
both = functools.partial(Fault, "synchronisation", modes=("plain", "address"), order="both")
race = functools.partial(Fault, "synchronisation", modes=("thread",))
waiting = functools.partial(Fault, "synchronisation")
memory = functools.partial(Fault, "memory")

FAULTS = [
    # a removed barrier: by its numbers ...
    both("reverse_block", "lane order matters: parameter 1", lambda: (numbers(128), zeros(128)), block=128),
    both(
        "sum_of_mirrors", "lane order matters: parameter 1", lambda: (numbers(384), zeros(128), np.int32(3)), block=128
    ),
    both("rotate_warp", "lane order matters: parameter 1", lambda: (numbers(32), zeros(32))),
    both("block_index", "lane order matters: parameter 0", lambda: (zeros(4),), grid=4),
    # ... and by both lines
    race(
        "reverse_block",
        "data race in shared memory .*::tile .*: "
        "thread .* writes at {block write}, thread .* read at {block read}, and no barrier",
        lambda: (numbers(128), zeros(128)),
        block=128,
    ),
    race(
        "sum_of_mirrors",
        "data race in shared memory .*::tile .*: "
        "thread .* reads at {reuse read}, thread .* wrote at {reuse write}, and no barrier",
        lambda: (numbers(384), zeros(128), np.int32(3)),
        block=128,
    ),
    race(
        "rotate_warp",
        "data race in shared memory .*::tile .*: "
        "thread .* writes at {warp write}, thread .* read at {warp read}, and no barrier",
        lambda: (numbers(32), zeros(32)),
    ),
    race(
        "block_index",
        r"data race in parameter 0 .* thread \(0, 0, 0\) of block \(0, 0, 0\) wrote at {shared place}",
        grid=4,
    ),
    race(
        "chain_of_lanes",
        "data race in shared memory .*::box .*: "
        "thread .* reads at {another lane reads}, thread .* wrote at {lane 0 writes}",
    ),
    # barriers and masks
    waiting(
        "overlapping_masks",
        r"deadlock: .*\n  threads 0-30 at __syncthreads \({all}\)"
        r"\n  thread 31 at __syncwarp \({last and second}\) with mask 0x80000002",
    ),
    waiting(
        "early_return",
        r"divergent barrier.*\n  threads 0-39 at __syncthreads \({met by some}\)\n  threads 40-63 have returned",
        lambda: (zeros(64), np.int32(40)),
        block=64,
    ),
    waiting(
        "two_barriers",
        r"divergent barrier.*\n  threads 0-31 at __syncthreads \({one barrier}\)"
        r"\n  thread 32 at __syncthreads \({another barrier}\)",
        block=64,
    ),
    waiting(
        "mask_without_caller", r"wrong warp mask: lane 0 calls __shfl_xor_sync \({left out}\) with mask 0x0000fffe"
    ),
    waiting(
        "mask_without_source",
        r"wrong warp mask: lane 0 reads lane 20, which is not in mask 0x0000ffff at __shfl_sync \({not in mask}\)",
    ),
    waiting(
        "source_has_returned",
        r"wrong warp mask: lane 8 reads lane 16, which has returned .* at __shfl_down_sync \({returned}\)",
    ),
    waiting(
        "masks_differ",
        r"wrong warp mask: .* different masks"
        r"\n  threads 0-15 at __ballot_sync \({with two masks}\) with mask 0xffffffff"
        r"\n  threads 16-31 .* mask 0xffff8000",
    ),
    waiting(
        "calls_differ",
        r"wrong warp mask: .* different calls"
        r"\n  threads 0-15 at __syncwarp \({one call}\)(?:.|\n)*\n  thread 16 at __syncwarp \({another call}\)",
    ),
    waiting(
        "half_warp_deadlock",
        r"deadlock: .*\n  threads 0-15, 32-47 at __shfl_xor_sync \({half a warp}\).*"
        r"\n  threads 16-31, 48-63 at __syncthreads \({the rest}\)",
        block=64,
    ),
    waiting(
        "wait_for_a_later_block",
        "no end after 0.2 s: .* {spins}",
        lambda: (np.zeros(1, np.int32),),
        grid=2,
        modes=("plain",),
    ),
    # addresses
    memory(
        "read_past_the_end",
        r"out of bounds: reads 4 bytes at byte 128 of parameter 0 \(128 bytes\), past its end, at {global read}",
        lambda: (zeros(32), zeros(32), np.int32(32)),
        modes=CHECKED,
    ),
    memory(
        "write_before_the_start",
        r"out of bounds: writes 4 bytes 4 bytes before parameter 0 .* at {global write}",
        lambda: (zeros(32), np.int32(32)),
        modes=CHECKED,
    ),
    memory(
        "past_dynamic_shared",
        r"out of bounds: writes 4 bytes at byte 128 of dynamic shared memory \(shared_mem = 128\), past its end, "
        r"at {dynamic shared}",
        shared=128,
        modes=CHECKED,
    ),
    memory(
        "past_static_shared",
        r"out of bounds: index 32 of an array of type 'float \[32\]', at {static shared}",
        modes=CHECKED,
    ),
    memory(
        "past_a_local_array",
        r"out of bounds: index 4 of an array of type 'float \[4\]', at {local array}",
        lambda: (zeros(32), np.int32(6)),
        modes=CHECKED,
    ),
    memory(
        "misaligned_vector",
        "misaligned address: 12 bytes past a multiple of 16, which 'const struct float4' needs, at {vector load}",
        lambda: (zeros(64), zeros(64)),
    ),
    memory("wild_pointer", r"illegal address 0x8000: .* at {wild store}", modes=("plain",)),
    memory("wild_pointer", "out of bounds: writes 4 bytes at no memory of this launch, at {wild store}", modes=CHECKED),
    memory(
        "write_to_const",
        r"write to read-only memory: parameter 0 \(256 bytes\) at byte 0, at {store to const}",
        lambda: (zeros(64), zeros(64)),
        modes=CHECKED,
    ),
    memory("deep_frame", "local memory overflow: .* at {frame}"),
    memory(
        "overflowing_offset",
        "undefined behaviour: an integer product overflows, at {32-bit product}",
        lambda: (zeros(1), np.int32(70000), np.int32(70000)),
        modes=CHECKED,
    ),
    memory("failed_assertion", r"assertion failed: .* \({assertion}\)", lambda: (zeros(32), np.int32(10))),
]
CASES = [(fault, mode) for fault in FAULTS for mode in fault.modes]
NAMES = [f"{fault.kernel}-{mode}-{fault.order}" for fault, mode in CASES]


@functools.cache
def built(source: str, mode: str, order: str) -> RawModule:
    kernels = re.findall(r"__global__ void (\w+)", SOURCES[source])
    names = [f"{kernel}<{healthy}>" for kernel in kernels for healthy in ("true", "false")]
    return RawModule(code=f'#line 1 "{source}.cu"\n' + SOURCES[source], name_expressions=names, mode=mode, order=order)


def launch(fault: Fault, mode: str, healthy: bool) -> None:
    kernel = built(fault.source, mode, fault.order).get_function(f"{fault.kernel}<{'true' if healthy else 'false'}>")
    kernel((fault.grid,), (fault.block,), fault.args(), shared_mem=fault.shared)


def with_lines(fault: Fault) -> str:
    def place(found: re.Match) -> str:
        (number,) = (
            i for i, text in enumerate(SOURCES[fault.source].splitlines(), 1) if text.endswith(f"//: {found[1]}")
        )
        return rf"{fault.source}\.cu:{number}\b"

    return re.sub(r"\{([^{}]+)\}", place, fault.says)


@pytest.mark.parametrize(("fault", "mode"), CASES, ids=NAMES)
def test_the_fault_is_caught_by_name(fault, mode, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.2)
    with pytest.raises(EmulatorError, match=rf"kernel {fault.kernel}<false>: (?:.|\n)*{with_lines(fault)}"):
        launch(fault, mode, healthy=False)


@pytest.mark.parametrize(("fault", "mode"), CASES, ids=NAMES)
def test_its_healthy_twin_passes(fault, mode):
    launch(fault, mode, healthy=True)


@pytest.mark.parametrize("mode", CHECKED)
def test_a_step_beyond_an_array_too_large_to_be_copied_is_seen(mode):
    code = 'extern "C" __global__ void write(unsigned char* x, long long at) { x[at] = 1; }'
    kernel = RawModule(code=code, mode=mode).get_function("write")
    x = np.zeros(UNCOPIED, np.uint8)  # never touched, it takes no memory
    kernel((1,), (1,), (x, np.int64(UNCOPIED - 1)))
    assert (x[-1], x[-2]) == (1, 0)
    for at, where in ((UNCOPIED, f"at byte {UNCOPIED} of parameter 0"), (-1, "1 bytes before parameter 0")):
        with pytest.raises(EmulatorError, match=f"out of bounds: writes 1 bytes {where}"):
            kernel((1,), (1,), (x, np.int64(at)))


@pytest.mark.parametrize("mode", ["plain", "address", "thread"])
def test_shared_memory_that_was_not_written_is_nan(mode):
    args = (numbers(64), zeros(64), np.int32(63))
    kernels = built("memory", mode, "forward")
    kernels.get_function("uninitialised_shared<true>")((1,), (64,), args)
    assert (args[1] == np.arange(1, 64).sum()).all()
    kernels.get_function("uninitialised_shared<false>")((1,), (64,), args)
    assert np.isnan(args[1]).all()


def test_a_launch_after_a_fault_is_sound():
    kernels = built("synchronisation", "plain", "forward")
    out = zeros(64)
    for _ in range(3):
        with pytest.raises(EmulatorError, match="divergent barrier"):
            kernels.get_function("early_return<false>")((1,), (64,), (out, np.int32(40)))
        kernels.get_function("early_return<true>")((1,), (64,), (out, np.int32(64)))
        assert (out == 1).all()
        out[:] = 0
