"""Half types round as IEEE says, vectors lie in memory as on the device, and conversions saturate."""

from pathlib import Path

import numpy as np
import pytest

from tests.cuda_emulator import RawModule, require

require()

SOURCE = (Path(__file__).parent / "kernels" / "number_types.cu").read_text()
HALF_NAMES = ("widen<__half>", "widen<__nv_bfloat16>", "arithmetic<__half>", "arithmetic<__nv_bfloat16>")
NARROW_NAMES = [f"narrow<{wide}, {half}>" for wide in ("float", "double") for half in ("__half", "__nv_bfloat16")]
OTHER_NAMES = ("by_name", "layout", "vectors", "to_integers", "bits", "functions", "maxima_drop_nan")


@pytest.fixture(scope="module")
def module():
    return RawModule(code=SOURCE, name_expressions=[*HALF_NAMES, *NARROW_NAMES, *OTHER_NAMES])


def bfloat16_of(x):
    """float32 or float64 to bfloat16's bits by exact comparison with both neighbours, ties to even."""
    x = np.asarray(x, np.float64)
    below = (x.astype(np.float32).view(np.uint32) >> 16).astype(np.int64)
    # float32's own rounding may have crossed into the next pattern
    candidates = np.stack([np.clip(below + d, below & 0x8000, (below & 0x8000) | 0x7F80) for d in (-1, 0, 1)])
    values = (candidates.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    values = np.where(
        np.isinf(values), np.copysign(2.0**128, values), values
    )  # overflow begins half a step below 2^128
    distance = np.abs(values - x)
    best = distance.min(axis=0)
    even = np.where((distance == best) & (candidates % 2 == 0), candidates, -1).max(axis=0)
    nearest = np.take_along_axis(candidates, distance.argmin(axis=0)[None], 0)[0]
    return np.where((distance == best).sum(axis=0) > 1, even, nearest).astype(np.uint16)


def bfloat16_values(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def difficult_numbers(dtype):
    """Numbers over the whole range, and those at, just above and just below the middle of two halves or bfloat16s."""
    rng = np.random.default_rng(0)
    spread = (rng.normal(size=40000) * np.exp2(rng.integers(-140, 127, 40000))).astype(dtype)
    near = (rng.normal(size=40000) * np.exp2(rng.integers(-27, 16, 40000))).astype(dtype)
    halves = np.arange(0x7BFF, dtype=np.uint16)
    middles = (
        halves.view(np.float16).astype(dtype) + (halves + 1).astype(np.uint16).view(np.float16).astype(dtype)
    ) / 2
    brains = np.arange(0x0001, 0x7F7F, 3, dtype=np.uint16)
    brain_middles = (bfloat16_values(brains).astype(np.float64) + bfloat16_values(brains + 1)) / 2
    exact = np.concatenate(
        [middles, brain_middles.astype(dtype), np.array([65504, 65519.996, 65520, 65536, 3.3895314e38, 0], dtype)]
    )
    around = np.concatenate([exact, np.nextafter(exact, dtype(np.inf)), np.nextafter(exact, dtype(0))])
    numbers = np.concatenate([spread, near, around, -around])
    return np.resize(numbers, -(-numbers.size // 256) * 256)


def run(module, name, x, out, *more):
    module.get_function(name)((x.size // 256,), (256,), (x, *more, out))
    return out


def test_every_half_widens_as_numpy_does(module):
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    wide = run(module, "widen<__half>", halves, np.zeros(65536, np.float32))
    assert np.array_equal(wide, halves.astype(np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(wide)[~np.isnan(wide)], np.signbit(halves)[~np.isnan(wide)])


def test_every_bfloat16_is_the_upper_half_of_a_float(module):
    bits = np.arange(65536, dtype=np.uint16)
    wide = run(module, "widen<__nv_bfloat16>", bits, np.zeros(65536, np.float32))
    assert np.array_equal(wide.view(np.uint32), bits.astype(np.uint32) << 16)


@pytest.mark.parametrize(("wide", "dtype"), [("float", np.float32), ("double", np.float64)])
def test_rounding_to_half_is_numpys(module, wide, dtype):
    x = difficult_numbers(dtype)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    assert np.array_equal(
        run(module, f"narrow<{wide}, __half>", x, np.zeros(x.size, np.float16)).view(np.uint16),
        expected.view(np.uint16),
    )


@pytest.mark.parametrize(("wide", "dtype"), [("float", np.float32), ("double", np.float64)])
def test_rounding_to_bfloat16_is_to_the_nearest_even(module, wide, dtype):
    x = difficult_numbers(dtype)
    got = run(module, f"narrow<{wide}, __nv_bfloat16>", x, np.zeros(x.size, np.uint16))
    assert np.array_equal(got, bfloat16_of(x))


@pytest.mark.parametrize("half", ["__half", "__nv_bfloat16"])
def test_infinity_and_nan_stay_what_they_are(module, half):
    x = np.resize(np.array([np.inf, -np.inf, np.nan, -np.nan], np.float32), 256)
    bits = run(module, f"narrow<float, {half}>", x, np.zeros(256, np.float16 if half == "__half" else np.uint16)).view(
        np.uint16
    )
    infinity = 0x7C00 if half == "__half" else 0x7F80
    assert bits[:4].tolist() == [infinity, infinity | 0x8000, 0x7FFF, 0x7FFF]


def test_arithmetic_of_halves_rounds_once(module):
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 65536, 1 << 15).astype(np.uint16).view(np.float16) for _ in range(2))
    a, b = np.where(np.isnan(a), np.float16(1), a), np.where(np.isnan(b), np.float16(1), b)
    got = np.zeros((8, a.size), np.float16)
    module.get_function("arithmetic<__half>")((a.size // 256,), (256,), (a, b, got, np.int32(a.size)))
    with np.errstate(all="ignore"):
        exact = (
            a.astype(np.longdouble) * b + a
        )  # 22 bits and an exponent of five: exact in 64 bits but for the widest gaps
        expected = [
            a + b,
            a - b,
            a * b,
            a / b,
            exact.astype(np.float16),
            np.maximum(a, b),
            -a,
            (a < b).astype(np.float16),
        ]
    for ours, theirs in zip(got, expected, strict=True):
        assert np.array_equal(ours, theirs, equal_nan=True)


def test_arithmetic_of_bfloat16_rounds_once(module):
    rng = np.random.default_rng(2)
    a, b = (rng.integers(0x3000, 0x4F00, 1 << 14).astype(np.uint16) for _ in range(2))
    got = np.zeros((8, a.size), np.uint16)
    module.get_function("arithmetic<__nv_bfloat16>")((a.size // 256,), (256,), (a, b, got, np.int32(a.size)))
    x, y = bfloat16_values(a).astype(np.float64), bfloat16_values(b).astype(np.float64)
    for ours, exact in zip(got[:4], (x + y, x - y, x * y, x / y), strict=True):
        assert np.array_equal(ours, bfloat16_of(exact))


def test_conversions_by_their_names(module):
    x = np.linspace(-3, 3, 32).astype(np.float32)
    h, b, bits, pairs = (
        np.zeros(32, np.float16),
        np.zeros(32, np.uint16),
        np.zeros((32, 2), np.uint16),
        np.zeros((32, 2), np.float32),
    )
    module.get_function("by_name")((1,), (32,), (x, h, b, bits, pairs))
    assert np.array_equal(h, x.astype(np.float16))
    assert np.array_equal(b, bfloat16_of(x))
    assert np.array_equal(bits, np.stack([h.view(np.uint16), b], axis=1))
    assert np.array_equal(
        pairs, np.stack([h + np.float16(1), (2 * x).astype(np.float16) + np.float16(1)], axis=1).astype(np.float32)
    )


def test_bfloat16_arrays_of_ml_dtypes_are_taken(module):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.linspace(-3, 3, 256).astype(ml_dtypes.bfloat16)
    assert np.array_equal(run(module, "widen<__nv_bfloat16>", x, np.zeros(256, np.float32)), x.astype(np.float32))


def test_vectors_have_the_devices_sizes_and_alignments(module):
    sizes = np.zeros(13, np.int32)
    module.get_function("layout")((1,), (1,), (sizes,))
    assert sizes.tolist() == [12, 4, 16, 16, 8, 16, 4, 4, 8, 16, 16, 4, 4]


def test_vectors_carry_their_components(module):
    x, y = np.arange(128, dtype=np.float32).reshape(32, 4), np.zeros((32, 4), np.float32)
    raw, ints = np.arange(128, dtype=np.uint8).reshape(32, 4) + np.uint8(100), np.zeros((32, 4), np.int32)
    module.get_function("vectors")((1,), (32,), (x, y, raw, ints))
    assert np.array_equal(y, x[:, ::-1])
    assert np.array_equal(ints, raw)


def test_conversions_to_integers_saturate(module):
    x = np.array([0.5, 1.5, -2.5, -0.1, 3e9, -3e9, 5e9, np.inf, -np.inf, np.nan], np.float32)
    nearest, down, natural = np.zeros(10, np.int32), np.zeros(10, np.int32), np.zeros(10, np.uint32)
    module.get_function("to_integers")((1,), (10,), (x, nearest, down, natural))
    top, bottom, most = 2**31 - 1, -(2**31), 2**32 - 1
    assert nearest.tolist() == [0, 2, -2, 0, top, bottom, top, top, bottom, 0]
    assert down.tolist() == [0, 1, -3, -1, top, bottom, top, top, bottom, 0]
    assert natural.tolist() == [0, 1, 0, 0, 3_000_000_000, 0, most, most, 0, 0]


def test_integer_intrinsics(module):
    x = np.array([0, 1, 0x80000000, 0x00F0F0F0, 0xFFFFFFFF, 0x12345678], np.uint32)
    y = np.zeros((6, 8), np.uint32)
    module.get_function("bits")((1,), (6,), (x, y))
    for v, row in zip(map(int, x), y.tolist(), strict=True):
        text = f"{v:032b}"
        both = v.to_bytes(4, "little") + (~v & 0xFFFFFFFF).to_bytes(4, "little")
        picked = int.from_bytes(bytes(both[i] for i in (1, 3, 5, 7)), "little")
        first = 32 - text.rindex("1") if v else 0
        leading = len(text) - len(text.lstrip("0"))
        assert row == [
            text.count("1"),
            leading,
            first,
            int(text[::-1], 2),
            v * 0x9E3779B9 >> 32,
            picked,
            v,
            ((v << 32) * 0x100000001 >> 64) & 0xFFFFFFFF,
        ]


def test_mathematical_functions(module):
    special = pytest.importorskip("scipy.special")
    x = np.array([1e-3, 0.3, 1.0, 2.5, 7.0])
    y, z = np.zeros((5, 10)), np.zeros((5, 10), np.float32)
    module.get_function("functions")((1,), (5,), (x, y, z))
    expected = [
        np.exp(x),
        np.log1p(x),
        x**-0.5,
        np.tanh(x),
        special.erf(x),
        x * x + 1,
        np.maximum(x, 1),
        x**2.5,
        np.expm1(x),
        special.ndtr(x),
    ]
    np.testing.assert_allclose(y.T, expected, rtol=1e-14)
    np.testing.assert_allclose(z.T, expected, rtol=1e-6)


def test_maxima_drop_a_nan_and_the_classes_are_told_apart(module):
    y = np.zeros(5, np.float32)
    module.get_function("maxima_drop_nan")((1,), (1,), (np.array([np.nan, np.inf], np.float32), y))
    assert y.tolist() == [1, 1, 1, 0, 1]
