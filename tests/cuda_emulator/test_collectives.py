"""Warp collectives and barriers return what PTX defines, for every lane, width and mask."""

from pathlib import Path

import numpy as np
import pytest

from tests.cuda_emulator import RawModule, require

require()

SOURCE = (Path(__file__).parent / "kernels" / "collectives.cu").read_text()
TYPES = {
    "int": np.int32,
    "unsigned": np.uint32,
    "long long": np.int64,
    "unsigned long long": np.uint64,
    "float": np.float32,
    "double": np.float64,
}


@pytest.fixture(scope="module", params=["plain", "thread"])
def module(request):
    names = [f"shuffle<{name}>" for name in TYPES]
    functions = ("votes", "reductions", "matches", "block_votes", "halves", "partial_warp")
    return RawModule(code=SOURCE, name_expressions=[*names, *functions], mode=request.param, order="both")


def ptx_source(mode, lane, operand, width):
    """The lane that PTX's shfl reads: its description, transcribed."""
    clamp = 0 if mode == 1 else 31
    segment = 32 - width
    highest = (lane & segment) | (clamp & ~segment)
    lowest = lane & segment
    step = operand & 31
    if mode == 0:
        source = lowest | (step & ~segment)
        inside = source <= highest
    elif mode == 1:
        source, inside = lane - step, lane - step >= highest
    elif mode == 2:
        source, inside = lane + step, lane + step <= highest
    else:
        source, inside = lane ^ step, (lane ^ step) <= highest
    return source if inside else lane


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("mode", [0, 1, 2, 3], ids=["index", "up", "down", "xor"])
def test_a_shuffle_reads_the_lane_that_ptx_defines(module, name, mode):
    # all 64 bits differ between lanes, so that a truncated value shows
    x = (np.arange(1, 33) * 0x0101010101010101).astype(TYPES[name])
    widths = (1, 2, 4, 8, 16, 32) if name == "float" else (8, 32)
    for width in widths:
        for operand in (0, 1, 2, 3, 7, 8, 15, 16, 17, 30, 31, 32, 33):
            y = np.zeros_like(x)
            module.get_function(f"shuffle<{name}>")((1,), (32,), (x, y, *map(np.int32, (mode, operand, width))))
            assert np.array_equal(y, x[[ptx_source(mode, lane, operand, width) for lane in range(32)]])


@pytest.mark.parametrize("mask", [0xFFFFFFFF, 0x0000FFFF, 0x80000001, 0x00000100])
@pytest.mark.parametrize("predicates", [0x00000000, 0xFFFFFFFF, 0x80000100, 0x0000FFFF])
def test_votes_count_the_lanes_of_the_mask(module, mask, predicates):
    bits = np.array([predicates >> lane & 1 for lane in range(32)], np.int32) * 7
    ballot, anyone, everyone = np.zeros(32, np.uint32), np.zeros(32, np.int32), np.zeros(32, np.int32)
    module.get_function("votes")((1,), (32,), (bits, np.uint32(mask), ballot, anyone, everyone))
    members = np.array([mask >> lane & 1 for lane in range(32)], bool)
    assert (ballot[members] == (predicates & mask)).all()
    assert (anyone[members] == bool(predicates & mask)).all()
    assert (everyone[members] == ((predicates & mask) == mask)).all()
    assert not ballot[~members].any()


def test_warp_reductions_of_signed_and_unsigned_numbers(module):
    x = np.random.default_rng(0).integers(-(2**31), 2**31, 64).astype(np.int32)
    signed, unsigned = np.zeros((3, 64), np.int32), np.zeros((5, 64), np.uint32)
    module.get_function("reductions")((1,), (64,), (x, signed, unsigned))
    for warp in (slice(0, 32), slice(32, 64)):
        v, u = x[warp], x[warp].view(np.uint32)
        assert (signed[:, warp] == [[v.sum(dtype=np.int32)], [v.min()], [v.max()]]).all()
        expected = [
            u.min(),
            u.max(),
            *(operation.reduce(u) for operation in (np.bitwise_and, np.bitwise_or, np.bitwise_xor)),
        ]
        assert (unsigned[:, warp] == np.array(expected)[:, None]).all()


@pytest.mark.parametrize("values", [[5], [1, 2, 3], [7, -7]])
def test_matches_name_the_lanes_with_equal_values(module, values):
    x = np.resize(np.array(values, np.int32), 32)
    anyone, everyone, alike = np.zeros(32, np.uint32), np.zeros(32, np.uint32), np.zeros(32, np.int32)
    module.get_function("matches")((1,), (32,), (x, anyone, everyone, alike))
    assert anyone.tolist() == [sum(1 << other for other in range(32) if x[other] == x[lane]) for lane in range(32)]
    assert (everyone == (0xFFFFFFFF if len(values) == 1 else 0)).all()
    assert (alike == (len(values) == 1)).all()


@pytest.mark.parametrize("count", [0, 1, 95, 96])
def test_barriers_that_count_count_the_whole_block(module, count):
    predicate = np.roll((np.arange(96) < count).astype(np.int32), 40) * 3
    results = np.zeros((3, 96), np.int32)
    module.get_function("block_votes")((1,), (96,), (predicate, *results))
    assert (results == np.array([[count], [count > 0], [count == 96]])).all()


def test_parts_of_a_warp_proceed_on_their_own(module):
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    module.get_function("halves")((1,), (64,), (x, y))
    rows = x.reshape(2, 2, 16)
    expected = np.empty_like(rows)
    expected[:, 0] = rows[:, 0].sum(axis=1, keepdims=True)
    quads = rows[:, 1].reshape(2, 4, 4)
    expected[:, 1] = np.tile(quads.sum(axis=1), (1, 4))
    assert np.array_equal(y.reshape(2, 2, 16), expected)


def test_lanes_that_do_not_exist_are_waited_for_by_nobody(module):
    lanes, active = np.zeros(40, np.uint32), np.zeros(40, np.uint32)
    module.get_function("partial_warp")((1,), (40,), (lanes, active))
    assert (lanes == [0xFFFFFFFF] * 32 + [0xFF] * 8).all()
