"""Loss and gradient of every driver of a row, against float64 and against mpmath."""

import numpy as np
import pytest

from gpu_nn.kernels import numpy_kernels
from gpu_nn.kernels.cuda_kernels.launch import Limits
from gpu_nn.kernels.cuda_kernels.row_strategy import (
    REDUCTION_BYTES,
    THREAD_PER_ROW_CLASSES,
    choose,
    multi_thread_variants,
)
from gpu_nn.kernels.numpy_kernels import costs
from gpu_nn.testing import reference
from tests.kernels.assertions import (
    assert_losses_close,
    assert_rows_close,
    cross_entropy,
    largest_term,
    smallest_normal,
    tolerance_of,
)
from tests.kernels.rows import (
    A100,
    BFLOAT16,
    FLOATS,
    LONG,
    length_of_some_variants,
    lengths_around_thresholds,
    logits,
    rows_for,
)


def indices(z, dtype=np.int64, seed=0):
    """Right and wrong labels, half of each where there are enough rows."""
    random = np.random.default_rng((seed, *z.shape, 1))
    y = random.integers(0, z.shape[1], len(z))
    right = random.random(len(z)) < 0.5
    y[right] = z.astype(np.float64).argmax(axis=1)[right]
    return y.astype(dtype)


def targets(z, dtype, seed=0):
    """Soft, one-hot, multi-hot and all-zero rows."""
    random = np.random.default_rng((seed, *z.shape, 2))
    n, m = z.shape
    y = random.random((n, m)) / m * 2
    y[1::4] = np.arange(m) == random.integers(0, m, (len(y[1::4]), 1))
    y[2::4] = random.random(y[2::4].shape) < 0.3
    y[3::8] = 0
    return y.astype(dtype)


def run(backend, z, y, in_place=False, with_grad=True, shifts=(0, 0), **options):
    """(loss, dz) as NumPy arrays. shifts: how far past a boundary of 16 bytes z and dz begin."""
    value = np.float64 if z.dtype == np.float64 else np.float32
    for name in ("class_weight", "row_scale"):
        if options.get(name) is not None:
            options[name] = backend.array(options[name].astype(value))
    on_device = backend.shifted(z, shifts[0])
    loss = backend.array(np.full(len(z), 7, value))
    dz = on_device if in_place else backend.shifted(np.full_like(z, 7), shifts[1]) if with_grad else None
    backend.kernels.softmax_cross_entropy(on_device, backend.array(y), loss, dz, **options)
    return backend.host(loss), None if dz is None else backend.host(dz)


def check(backend, z, y, options=None, **how):
    options = options or {}
    loss, dz = run(backend, z.copy(), y, **options, **how)
    true_loss, true_dz = cross_entropy(z, y, **options)
    assert_losses_close(loss, true_loss)
    if dz is not None:
        assert_rows_close(dz, true_dz, largest_term(z, y, **options))


def grid(dtypes, lengths, uniform):
    return [pytest.param(dtype, m, id=f"{dtype}-{m}") for dtype in dtypes for m in lengths(dtype.itemsize, uniform)]


@pytest.mark.parametrize(("dtype", "m"), grid(FLOATS[:1], lengths_around_thresholds, True))
def test_index_labels_around_every_threshold(backend, dtype, m):
    z = logits(rows_for(m), m, dtype)
    check(backend, z, indices(z))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "m"), grid(FLOATS[1:], lengths_around_thresholds, True))
def test_index_labels_around_every_threshold_of_the_other_types(backend, dtype, m):
    z = logits(rows_for(m), m, dtype)
    check(backend, z, indices(z, np.int32))
    check(backend, z, indices(z), {"complement_weight": 0.0})


@pytest.mark.parametrize(("dtype", "m"), grid(FLOATS[1:], length_of_some_variants, True))
def test_index_labels_in_every_type(backend, dtype, m):
    z = logits(rows_for(m), m, dtype)
    check(backend, z, indices(z, np.int32))


@pytest.mark.parametrize(("dtype", "m"), grid(FLOATS[:1], length_of_some_variants, False))
def test_targets_of_each_class(backend, dtype, m):
    z = logits(rows_for(m), m, dtype)
    weight = np.random.default_rng(3).random(m) + 0.5
    check(backend, z, targets(z, np.float32))
    check(
        backend, z, targets(z, np.float32), {"class_weight": weight, "label_smoothing": 0.1, "complement_weight": 0.7}
    )


@pytest.mark.slow
@pytest.mark.parametrize("m", lengths_around_thresholds(4, False))
def test_class_weights_around_every_threshold(backend, m):
    z = logits(rows_for(m), m, np.float32)
    weight = np.random.default_rng(5).random(m) * 2
    check(backend, z, indices(z), {"class_weight": weight, "label_smoothing": 0.2, "complement_weight": 0.5})


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "m"), grid(FLOATS, lengths_around_thresholds, False))
def test_targets_around_every_threshold(backend, dtype, m):
    z = logits(rows_for(m), m, dtype)
    check(backend, z, targets(z, dtype))


@pytest.mark.slow
@pytest.mark.parametrize("target", FLOATS, ids=str)
@pytest.mark.parametrize(("dtype", "m"), grid(FLOATS, length_of_some_variants, False))
def test_targets_of_every_type(backend, dtype, m, target):
    z = logits(rows_for(m), m, dtype)
    check(backend, z, targets(z, target))


@pytest.mark.parametrize("m", length_of_some_variants(4, False))
def test_class_weights_on_index_labels(backend, m):
    z = logits(rows_for(m), m, np.float32)
    weight = np.random.default_rng(4).random(m) * 2
    weight[::5] = 0
    check(backend, z, indices(z), {"class_weight": weight})
    check(backend, z, indices(z), {"class_weight": weight, "label_smoothing": 0.2, "complement_weight": 0.5})


@pytest.mark.parametrize("m", length_of_some_variants(4, True))
def test_the_everyday_loss_and_smoothing(backend, m):
    z = logits(rows_for(m), m, np.float32)
    check(backend, z, indices(z), {"complement_weight": 0.0})
    check(backend, z, indices(z), {"complement_weight": 3.0, "label_smoothing": 0.1})
    check(backend, z, indices(z), {"label_smoothing": 1.0})


# Every residue of 16 bytes, of z and dz, equal and different, for each variant and the shortest and longest rows that
# differ.
@pytest.mark.parametrize("m", [7, 33, 37, 131, 1023, 4097, 20_001, 50_001])
def test_memory_that_begins_anywhere(backend, m):
    n = 3 if m > 2000 else 11
    z = logits(n, m, np.float32)
    y = indices(z)
    for shift in (1, 2, 3):
        check(backend, z, y, shifts=(shift, shift))
        check(backend, z, y, shifts=(shift, 0))
    check(backend, z, y, shifts=(0, 1))
    check(backend, z, targets(z, np.float32), shifts=(1, 2))


@pytest.mark.parametrize("m", [9, 67, 1031, 70_001])
def test_sixteen_bit_memory_that_begins_anywhere(backend, m):
    z = logits(3 if m > 2000 else 19, m, BFLOAT16)
    y = indices(z)
    for shift in range(1, 8):
        check(backend, z, y, shifts=(shift, 8 - shift))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("m", [3, 100, 3000, 60_000])
def test_in_place_gives_the_same_bits(backend, m, dtype):
    z = logits(3 if m > 2000 else 40, m, dtype)
    y = indices(z)
    loss, dz = run(backend, z.copy(), y)
    loss_in_place, dz_in_place = run(backend, z.copy(), y, in_place=True)
    np.testing.assert_array_equal(loss, loss_in_place)
    np.testing.assert_array_equal(dz, dz_in_place)


@pytest.mark.parametrize("m", [3, 100, 3000, 60_000])
def test_loss_alone_is_the_same_loss(backend, m):
    z = logits(3 if m > 2000 else 40, m, np.float32)
    y = indices(z)
    np.testing.assert_array_equal(run(backend, z, y, with_grad=False)[0], run(backend, z, y)[0])


EVERY_WAY = (3, 33, 700, 3001, 38_001, LONG)


@pytest.mark.parametrize("m", EVERY_WAY)
def test_rows_that_do_not_count_are_zero_whatever_they_hold(backend, m):
    z = logits(9, m, np.float32)
    y = indices(z)
    z[[1, 3]] = np.nan
    y[[1, 4]] = -100
    row_scale = np.array([1, 1, 0.5, 0, 1, 2, 1, 1, 1.0])
    options = {"ignore_index": -100, "row_scale": row_scale, "scale": 0.25}
    loss, dz = run(backend, z, y, **options)
    for row in (1, 3, 4):
        assert loss[row] == 0
        assert not dz[row].any()
    check(backend, z, y, options)


@pytest.mark.parametrize("scale", [0.0, 1e-60])  # the second is 0 in float32
def test_a_scale_of_zero_leaves_nothing_of_what_rows_hold(backend, scale):
    for m in (3, 700):
        z = logits(9, m, np.float32)
        z[1], z[3, 1] = np.nan, np.inf
        for y in (indices(z, np.int32), np.full(9, m), targets(z, np.float32)):
            for row_scale in (None, np.ones(9)):
                loss, dz = run(backend, z, y, scale=scale, row_scale=row_scale)
                assert not loss.any()
                assert not dz.any()


@pytest.mark.parametrize("m", EVERY_WAY)
def test_a_label_out_of_range_makes_its_own_row_nan(backend, m):
    z = logits(9, m, np.float32)
    for dtype in (np.int32, np.int64) if m in (33, LONG) else (np.int64,):
        y = indices(z, dtype)
        wrong = {1: m, 3: -1, 4: np.iinfo(dtype).min, 8: np.iinfo(dtype).max}
        for row, label in wrong.items():
            y[row] = label
        loss, dz = run(backend, z, y)
        nan = np.isin(np.arange(9), list(wrong))
        np.testing.assert_array_equal(np.isnan(loss), nan)
        np.testing.assert_array_equal(np.isnan(dz).all(axis=1), nan)
        np.testing.assert_array_equal(np.isnan(dz).any(axis=1), nan)
        check(backend, z[~nan], y[~nan])


@pytest.mark.parametrize("m", EVERY_WAY)
def test_a_row_with_nan_or_infinity_stays_alone(backend, m):
    z = logits(9, m, np.float32)
    z[2, m // 2] = np.nan
    z[4] = np.nan
    z[5, m - 1] = np.inf
    z[7, 0] = z[7, 1] = np.inf
    z[7, m - 1] = -np.inf
    y = indices(np.nan_to_num(z))
    loss, dz = run(backend, z, y)
    broken = np.isin(np.arange(9), (2, 4, 5, 7))
    np.testing.assert_array_equal(np.isnan(loss), broken)
    # A masked class has no gradient even here.
    np.testing.assert_array_equal(np.isnan(dz), broken[:, None] & ~np.isneginf(z))
    check(backend, z[~broken], y[~broken])


@pytest.mark.parametrize("m", EVERY_WAY)
def test_a_label_on_a_masked_class_costs_infinity_and_moves_no_masked_class(backend, m):
    z = logits(5, m, np.float32)
    z[:, ::2] = -np.inf
    z[1] = -np.inf
    z[2, 0] = 1
    z[2, 1:] = -np.inf
    y = np.array([0, m - 1, m - 1, 1, 1])
    y[y % 2 == 1] -= 1
    y[2] = 2
    loss, dz = run(backend, z, y)
    assert np.isposinf(loss).all()
    assert not dz[np.isneginf(z)].any()
    assert not np.isnan(dz).any()
    check(backend, z, y)
    check(backend, z, np.eye(m, dtype=np.float32)[y] if m < 1000 else targets(z, np.float32))


@pytest.mark.parametrize("m", [2, 33, 700, 3001, 38_001, LONG])
def test_equal_logits_are_exact(backend, m):
    """All classes tie: g_j = (1 - 2 [j = y] + …) in closed form, whatever k is."""
    z = np.zeros((3, m), np.float32)
    check(backend, z, np.array([0, m // 2, m - 1]))


def test_a_tie_goes_by_its_first_column_at_any_distance(backend):
    """The maximum's column takes the label's part only if all threads agree on it."""
    for m in (20, 100, 3001, 38_001):
        for distance in (1, m // 3, m - 2):
            z = np.linspace(-1, 0, m, dtype=np.float32)[None].repeat(3, axis=0)
            z[:, 1] = z[:, 1 + distance] = 2
            check(backend, z, np.array([1, 1 + distance, 0]))


@pytest.mark.parametrize("m", [2, 33, 700])
def test_a_sure_row_keeps_all_digits(backend, m):
    """M₂-M₁ near -80 is rounded by up to 4e-6, which e to its power would take over."""
    random = np.random.default_rng(m)
    z = random.normal(0, 1, (40, m)).astype(np.float32)
    z[:, 0] = random.uniform(62, 84, 40)
    y = np.zeros(40, np.int64)
    loss, dz = run(backend, z, y)
    true_loss, true_dz = cross_entropy(z, y)
    np.testing.assert_allclose(loss, true_loss, rtol=1e-6)
    np.testing.assert_allclose(dz[:, 0], true_dz[:, 0], rtol=1e-6)


def test_no_rows_make_no_losses(backend):
    for y in (np.empty(0, np.int64), np.empty((0, 5), np.float32)):
        loss, dz = run(backend, np.empty((0, 5), np.float32), y)
        assert loss.shape == (0,)
        assert dz.shape == (0, 5)


@pytest.mark.parametrize(
    ("dtype", "m"), [*((np.float32, m) for m in (2, 3, 10, 41, 300)), (np.float64, 3), (np.float64, 41)]
)
@pytest.mark.parametrize("scale", [1, 10, 100, 1000])
def test_against_mpmath(backend, m, scale, dtype):
    random = np.random.default_rng((m, scale))
    z = (random.normal(0, 1, (4, m)) * scale).astype(dtype)
    order = np.argsort(z, axis=1)
    y = np.array([order[0, -1], order[1, -2], order[2, 0], order[3, -1]])
    dtype = np.dtype(dtype)
    tolerance, tiny = tolerance_of(dtype), smallest_normal(dtype)
    for labels in (y, targets(z, dtype)):
        loss, dz = run(backend, z, labels)
        for row in range(len(z)):
            target = labels[row] if labels.ndim == 2 else np.arange(m) == labels[row]
            truth = reference.cost_and_grad(z[row], target)
            assert truth.cost_error(loss[row], tiny) <= tolerance
            assert truth.grad_error(dz[row], tiny) <= tolerance


# The highest logit and the highest of the others, on both sides of where a CPU can do with plain exponentials, and of
# where these overflow, fall below the normal numbers or lose all others beside the highest.
EDGES = [
    *[(59.9, 59.0), (60.1, 60.0), (83.0, 82.9), (86.0, 85.9), (88.6, 88.5), (200.0, 199.0)],
    *[(59.0, -57.0), (59.0, -25.0), (40.0, -60.0), (10.0, -62.0), (-1.0, -80.0)],
    *[(-50.0, -57.5), (-50.0, -95.0), (-20.0, -93.0), (-59.9, -60.0), (-60.1, -60.2), (-87.0, -88.0), (-110.0, -111.0)],
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("m", [67, 520])
@pytest.mark.parametrize(("highest", "other"), EDGES)
def test_rows_whose_exponentials_lie_at_the_edge_of_a_type(backend, highest, other, m, dtype):
    """By themselves: among rows of all sizes a block would be computed with their differences."""
    random = np.random.default_rng((m, int(1000 + highest)))
    z = (other - random.random((2, m))).astype(dtype)
    z[:, 5], z[:, 7] = other, highest
    tolerance, tiny = tolerance_of(np.dtype(dtype)), smallest_normal(np.dtype(dtype))
    for y in (np.array([7, 5]), targets(z, dtype)):
        loss, dz = run(backend, z, y)
        for row in range(2):
            truth = reference.cost_and_grad(z[row], y[row] if y.ndim == 2 else np.arange(m) == y[row])
            assert truth.cost_error(loss[row], tiny) <= tolerance
            assert truth.grad_error(dz[row], tiny) <= tolerance


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("m", [67, 700])
def test_rows_of_ordinary_logits_by_themselves(backend, m, dtype):
    z = np.random.default_rng(m).normal(0, 3, (40, m))
    z[1, 3] = z[1].max()  # a tie
    z[2, 9:] = -np.inf
    z[3] = 0
    z = z.astype(dtype)
    weight = np.random.default_rng(3).random(m) + 0.5
    for y in (indices(z), targets(z, np.float32)):
        check(backend, z, y)
        check(backend, z, y, {"complement_weight": 0.0})
        check(backend, z, y, {"class_weight": weight, "label_smoothing": 0.1, "complement_weight": 0.7})


def test_the_strategy_table_leaves_no_length_out():
    for itemsize in THREAD_PER_ROW_CLASSES:
        for limits in (Limits(75, 40, 64 * 1024), A100, Limits(90, 132, 227 * 1024)):
            for uniform in (True, False):
                longest = [end for end, _ in multi_thread_variants(itemsize, limits)]
                assert longest == sorted(set(longest))
                assert choose(262_144, itemsize, limits, uniform).variant == (
                    "in_cluster" if limits.compute_capability == 90 and itemsize < 8 else "multi_pass"
                )
                for m in {
                    2,
                    10**6,
                    *(end + d for end in (THREAD_PER_ROW_CLASSES[itemsize][0], *longest[:-1]) for d in (-1, 0, 1)),
                }:
                    strategy = choose(m, itemsize, limits, uniform)
                    width = 16 // itemsize
                    if strategy.variant in ("in_registers", "in_cluster"):
                        row_threads, vectors = strategy.template[:2]
                        assert m // width <= row_threads * vectors * strategy.blocks
                    if strategy.variant == "multi_pass":
                        whole = m // width
                        assert strategy.numbers == (min(whole, (limits.shared_bytes - REDUCTION_BYTES) // 16),)
                        assert strategy.shared_bytes == strategy.numbers[0] * 16
                    assert strategy.shared_bytes <= limits.shared_bytes


@pytest.mark.parametrize("vector_log1p", [True, False], ids=["log1p", "products"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", [2, 10, 41, 64, 65, 300, 2001])
def test_the_cpu_sums_log1p_by_either_method(monkeypatch, vector_log1p, dtype, m):
    """The processor decides which one is used, so the test sets each."""
    monkeypatch.setattr(costs, "_VECTOR_LOG1P", vector_log1p)
    random = np.random.default_rng(m)
    z = (random.standard_normal((200, m)) * random.choice([1e-3, 1, 30], (200, 1))).astype(dtype)
    y = random.integers(0, m, 200)
    tolerance, tiny = tolerance_of(np.dtype(dtype)), smallest_normal(np.dtype(dtype))
    loss, dz = np.empty(200, dtype), np.empty_like(z)
    for smoothing in (0.0, 0.1):
        numpy_kernels.softmax_cross_entropy(z, y, loss, dz, label_smoothing=smoothing)
        for row in range(0, 200, 90):
            truth = reference.cost_and_grad(z[row], np.arange(m) == y[row], label_smoothing=smoothing)
            assert truth.cost_error(loss[row], tiny) <= tolerance
            assert truth.grad_error(dz[row], tiny) <= tolerance
