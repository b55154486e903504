"""Optimizer steps against the textbook recursions in float64."""

import math

import numpy as np
import pytest

FLOATS = (np.float32, np.float64)

# 1 … 17 meets every residue of a vector; the others lie around a block's tile of 1024 floats, several tiles, many
# blocks.
SIZES = (*range(18), 255, 256, 257, 511, 513, 1023, 1024, 1025, 2049, 5000)


def one(backend, value, dtype=np.float64):
    return backend.array(np.full(1, value, dtype))


def textbook_sgd(w, g, v, *, lr, momentum, nesterov, weight_decay, decayed):
    g = g + weight_decay * w * (np.arange(w.size) < decayed)
    v = momentum * v + g
    return w - lr * (g + momentum * v if nesterov else v), v


def textbook_adam(w, g, m, v, t, *, lr, beta1, beta2, eps, weight_decay, decoupled, decayed):
    decay = weight_decay * (np.arange(w.size) < decayed)
    if decoupled:
        w = w - lr * decay * w
    else:
        g = g + decay * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    return w - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps), m, v


def bias_of_beta(beta, t):
    """The relative error of 1 - β^t for a β that was rounded to float64 itself."""
    power = beta**t
    return float(np.finfo(np.float64).eps) * (1 + t * power / (1 - power))


def gradients(size, steps, seed):
    random = np.random.default_rng(seed)
    return random.normal(0, 1, size), random.normal(0, 1, (steps, size)) * random.lognormal(0, 2, size)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scale", [None, 0.25])
@pytest.mark.parametrize(
    ("momentum", "nesterov", "weight_decay"),
    [(0.0, False, 0.0), (0.0, False, 0.1), (0.9, False, 0.0), (0.9, False, 0.1), (0.9, True, 0.1)],
)
def test_sgd_is_the_textbook_recursion(backend, momentum, nesterov, weight_decay, scale, dtype):
    size, steps = 1003, 12
    w, g = gradients(size, steps, 1)
    options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "decayed": 502}
    parameter = backend.array(w.astype(dtype))
    velocity = backend.array(np.zeros(size, dtype)) if momentum else None
    gradient_scale = None if scale is None else one(backend, scale, dtype)
    v, moved = np.zeros(size), np.zeros(size)
    for t in range(steps):
        lr = 0.05 / (t + 1)
        gradient = backend.array(g[t].astype(dtype))
        backend.kernels.sgd(parameter, gradient, velocity, one(backend, lr), gradient_scale=gradient_scale, **options)
        before = w
        w, v = textbook_sgd(w, g[t] * (scale or 1), v, lr=lr, **options)
        moved += abs(w - before)
    epsilon = np.finfo(dtype).eps
    assert (abs(backend.host(parameter) - w) <= epsilon * (steps * abs(w) + 10 * moved + 2)).all()
    if momentum:
        assert (abs(backend.host(velocity) - v) <= epsilon * 10 * (abs(v) + abs(g).sum(axis=0))).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scale", [None, 0.25])
@pytest.mark.parametrize(("weight_decay", "decoupled"), [(0.0, False), (0.1, False), (0.1, True)])
@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.999), (0.0, 0.99), (0.8, 0.0)])
def test_adam_is_the_textbook_recursion(backend, beta1, beta2, weight_decay, decoupled, scale, dtype):
    """Step by step from the state that the kernel left, so that a step's rounding is not blown up by the next ones."""
    size, steps = 1003, 12
    start, gradient = gradients(size, steps, 2)
    gradient = gradient.astype(dtype)
    options = {"beta1": beta1, "beta2": beta2, "eps": 1e-8, "weight_decay": weight_decay}
    options |= {"decoupled": decoupled, "decayed": 502}
    decay = 0 if decoupled else weight_decay
    state = [backend.array(x.astype(dtype)) for x in (start, np.zeros(size), np.zeros(size))]
    gradient_scale = None if scale is None else one(backend, scale, dtype)
    step = backend.array(np.zeros(1, np.int64))
    epsilon = float(np.finfo(dtype).eps)

    def textbook_state():
        # The kernel's moments lack their factors 1-β.
        w, m, v = (backend.host(array).astype(np.float64) for array in state)
        return w, m * (1 - beta1), v * (1 - beta2)

    for t in range(1, steps + 1):
        w, m, v = textbook_state()
        lr, g = 0.05 / t, gradient[t - 1].astype(np.float64) * (scale or 1)
        backend.kernels.increment(step)
        w_kernel, m_kernel, v_kernel = state
        backend.kernels.adam(
            w_kernel, backend.array(gradient[t - 1]), m_kernel, v_kernel, one(backend, lr), step,
            gradient_scale=gradient_scale, **options,
        )  # fmt: skip
        # What the new moments are sums of, without cancellation.
        terms = abs(g) + decay * abs(w)
        m_terms, v_terms = beta1 * abs(m) + (1 - beta1) * terms, beta2 * v + (1 - beta2) * terms * terms
        w, m, v = textbook_adam(w, g, m, v, t, lr=lr, **options)
        longest = lr * m_terms / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + 1e-8) * v_terms / v
        slack = epsilon * (2 * abs(w) + 8 * longest) + (bias_of_beta(beta1, t) + bias_of_beta(beta2, t)) * longest
        got_w, got_m, got_v = textbook_state()
        assert (abs(got_w - w) <= slack).all()
        assert (abs(got_m - m) <= 4 * epsilon * m_terms).all()
        assert (abs(got_v - v) <= 4 * epsilon * v_terms).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("t", [1, 2, 1000, 10**6, 10**12])
def test_bias_correction_keeps_its_digits_from_the_first_step_to_the_last(backend, t, dtype):
    random = np.random.default_rng(4)
    g, m, v = random.normal(0, 1, 64), random.normal(0, 1, 64), random.random(64)
    options = {"beta1": 0.9, "beta2": 0.9999, "eps": 1e-8, "weight_decay": 0.0, "decoupled": False, "decayed": 0}
    parameter, gradient = backend.array(np.zeros(64, dtype)), backend.array(g.astype(dtype))
    mean, square = backend.array((m / (1 - 0.9)).astype(dtype)), backend.array((v / (1 - 0.9999)).astype(dtype))
    step = backend.array(np.array([t]))
    backend.kernels.adam(parameter, gradient, mean, square, one(backend, 1.0), step, **options)
    w, m, _ = textbook_adam(np.zeros(64), g, m, v, t, lr=1.0, **options)
    # β₁ m and (1-β₁) g may cancel in the new mean.
    cancelled = (abs(m) + 0.2 * abs(g)) / abs(m)
    relative = 8 * np.finfo(dtype).eps * cancelled + bias_of_beta(0.9, t) + bias_of_beta(0.9999, t)
    assert (abs(backend.host(parameter) - w) <= relative * abs(w)).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", SIZES)
def test_every_size_and_every_place_where_the_decay_ends(backend, size, dtype):
    """Powers of two make every product exact: w = 4, g = 2, η = ½, so that w - η (g + w [i < decayed]) is 3 or 1."""
    for decayed in {0, 1, size // 2, max(size - 1, 0), size}:
        parameter = backend.array(np.full(size, 4, dtype))
        backend.kernels.sgd(
            parameter, backend.array(np.full(size, 2, dtype)), None, one(backend, 0.5),
            momentum=0.0, nesterov=False, weight_decay=1.0, decayed=decayed,
        )  # fmt: skip
        np.testing.assert_array_equal(backend.host(parameter), np.where(np.arange(size) < decayed, 1, 3))


@pytest.mark.parametrize("dtype", FLOATS)
def test_unaligned_views_give_the_same_and_touch_nothing_else(backend, dtype):
    random = np.random.default_rng(5)
    size = 1100
    values = [random.random(size).astype(dtype) for _ in range(4)]
    options = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "decoupled": True, "decayed": 601}

    def run(shifts):
        memory = [np.full(size + 16, 7, dtype) for _ in values]
        for array, value, shift in zip(memory, values, shifts, strict=True):
            array[shift : shift + size] = value
        memory = [backend.array(array) for array in memory]
        views = [array[shift : shift + size] for array, shift in zip(memory, shifts, strict=True)]
        backend.kernels.adam(*views, one(backend, 0.1), backend.array(np.array([3])), **options)
        backend.kernels.sgd(*views[:3], one(backend, 0.1), momentum=0.5, nesterov=True, weight_decay=0.1, decayed=601)
        for array, shift in zip(memory, shifts, strict=True):
            outside = np.delete(backend.host(array), np.arange(shift, shift + size))
            assert (outside == 7).all()
        norm = one(backend, np.nan)
        backend.kernels.gradient_norm(views[1], norm)
        return [backend.host(view).copy() for view in views], float(backend.host(norm)[0])

    expected, norm = run((0, 0, 0, 0))
    for shifts in ((1, 1, 1, 1), (2, 2, 2, 2), (3, 3, 3, 3), (0, 1, 0, 0), (1, 2, 3, 4), (0, 0, 0, 3)):
        arrays, shifted_norm = run(shifts)
        for array, right in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(array, right)
        assert shifted_norm == pytest.approx(norm, rel=1e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [*SIZES, 300_007])
def test_norm_of_whole_numbers_is_exact(backend, size, dtype):
    g = np.random.default_rng(size).integers(-9, 9, size).astype(dtype)
    norm = one(backend, np.nan)
    backend.kernels.gradient_norm(backend.array(g), norm)
    assert backend.host(norm)[0] == math.sqrt(int((g.astype(np.int64) ** 2).sum()))


def test_norm_neither_overflows_nor_underflows_in_float32(backend):
    for value in (1e30, 1e-25):
        norm = one(backend, np.nan)
        backend.kernels.gradient_norm(backend.array(np.full(10_000, value, np.float32)), norm)
        assert backend.host(norm)[0] == pytest.approx(100 * float(np.float32(value)), rel=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_norm_tells_of_values_that_are_not_finite(backend, value):
    g, norm = np.ones(5000, np.float32), one(backend, 0)
    g[4321] = value
    backend.kernels.gradient_norm(backend.array(g), norm)
    np.testing.assert_equal(backend.host(norm)[0], value)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("norm", "scale"), [(0.0, 1), (1.5, 1), (2.0, 1), (8.0, 0.25), (np.inf, 0)])
def test_clip_scale_shortens_what_is_longer_than_max_norm(backend, norm, scale, dtype):
    out = one(backend, np.nan, dtype)
    backend.kernels.clip_scale(one(backend, norm), 2.0, out)
    assert backend.host(out)[0] == scale


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [0, 1, 7, 1025])
def test_flush_subnormals_clears_what_is_about_to_become_one(backend, size, dtype):
    threshold = float(np.finfo(dtype).tiny) * 2.0**26
    values = np.resize(np.array([threshold, -threshold, threshold / 2, -threshold / 2, 0, 1, -1], dtype), size)
    state = backend.array(values.copy())
    backend.kernels.flush_subnormals(state)
    np.testing.assert_array_equal(backend.host(state), np.where(abs(values) < threshold, 0, values))


@pytest.mark.parametrize(
    ("dtype", "start"), [(np.int64, 0), (np.int64, 2**31 - 1), (np.uint64, 2**63), (np.uint64, 2**32 - 1)]
)
def test_advance_counts_where_the_number_lies(backend, dtype, start):
    counter = backend.array(np.array([start], dtype))
    backend.kernels.increment(counter)
    assert int(backend.host(counter)[0]) == start + 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_gradient_scale_of_nan_leaves_all_as_it_is(backend, dtype):
    w, g = gradients(1003, 1, 3)
    bad = g[0].copy()
    bad[5] = np.inf
    arrays = [backend.array(array.astype(dtype)) for array in (w, bad, np.abs(g[0]), g[0] ** 2)]
    rest = {"weight_decay": 0.1, "decayed": 500, "gradient_scale": one(backend, np.nan, dtype)}
    adam = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decoupled": True}
    backend.kernels.adam(*arrays, one(backend, 0.1), one(backend, 1, np.int64), **adam, **rest)
    backend.kernels.sgd(*arrays[:3], one(backend, 0.1), momentum=0.9, nesterov=True, **rest)
    for array, before in zip(arrays, (w, bad, np.abs(g[0]), g[0] ** 2), strict=True):
        np.testing.assert_array_equal(backend.host(array), before.astype(dtype))
