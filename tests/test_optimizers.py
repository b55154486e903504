"""Optimizers against their recursions, written out in float64."""

import numpy as np
import pytest

from gpu_nn import SGD, Adam, AdamW, Network
from gpu_nn.schedules import Cosine

STEPS = 200


def textbook(name, p, grads, decayed, lr, **options):
    """The recursion of the paper, a vector at a time."""
    p = p.astype(np.float64)
    m, v = np.zeros_like(p), np.zeros_like(p)
    decay = np.where(decayed, options.get("weight_decay", 0.0), 0.0)
    for t, g in enumerate(grads, start=1):
        rate = lr(t - 1) if callable(lr) else lr
        g = g.astype(np.float64)
        if "max_norm" in options:
            g = g * min(1, options["max_norm"] / np.linalg.norm(g))
        if name == "sgd":
            g = g + decay * p
            m = options["momentum"] * m + g
            p = p - rate * (g + options["momentum"] * m if options["nesterov"] else m)
            continue
        if name == "adam":
            g = g + decay * p
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        update = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        p = p - rate * update - (rate * decay * p if name == "adamw" else 0)
    return p


CASES = [
    ("sgd", SGD, {"momentum": 0.0, "nesterov": False}),
    ("sgd", SGD, {"momentum": 0.9, "nesterov": False, "weight_decay": 0.1}),
    ("sgd", SGD, {"momentum": 0.9, "nesterov": True, "max_norm": 2.0}),
    ("adam", Adam, {}),
    ("adam", Adam, {"weight_decay": 0.1, "max_norm": 2.0}),
    ("adamw", AdamW, {"weight_decay": 0.1}),
]


@pytest.mark.parametrize(("name", "make", "options"), CASES, ids=str)
@pytest.mark.parametrize("lr", [0.01, Cosine(0.01, STEPS)], ids=["constant", "cosine"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
def test_steps_follow_the_recursion(name, make, options, lr, dtype, tolerance):
    net = Network([6, 5, 3], device="cpu", dtype=dtype)
    random = np.random.default_rng(0)
    used = net.flat_parameters != 0
    for bias in ("0.bias", "1.bias"):
        net.parameters[bias][...] = random.standard_normal(net.parameters[bias].shape)
    used = net.flat_parameters != 0
    grads = [(random.standard_normal(used.size) * used).astype(dtype) for _ in range(STEPS)]
    decayed = np.arange(used.size) < net.flat.n_decayed
    expected = textbook(name, net.flat_parameters, grads, decayed, lr, **options)
    optimizer = make(lr, **options)
    for g in grads:
        net.flat_grads[:] = g
        optimizer.step(net)
    np.testing.assert_allclose(net.flat_parameters, expected, rtol=tolerance, atol=tolerance)
    assert not net.flat_parameters[~used].any()


def test_a_gradient_shorter_than_max_norm_is_left_alone():
    free, clipped = Network([6, 3], device="cpu"), Network([6, 3], device="cpu")
    for net in (free, clipped):
        net.flat_grads[:] = 1e-3
    SGD(0.1).step(free)
    SGD(0.1, max_norm=1.0).step(clipped)
    np.testing.assert_array_equal(free.flat_parameters, clipped.flat_parameters)


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e30, 3e38])
def test_the_norm_of_extreme_gradients_neither_overflows_nor_vanishes(scale):
    net = Network([6, 3], device="cpu")
    before = net.flat_parameters.copy()
    net.flat_grads[:] = np.where(before != 0, scale, 0)
    SGD(1.0, max_norm=1.0).step(net)
    length = np.linalg.norm((net.flat_parameters - before).astype(np.float64))
    assert length == pytest.approx(min(1.0, scale * np.sqrt((before != 0).sum())), rel=1e-5, abs=1e-30)


def test_moments_of_a_unit_without_gradient_become_zero_not_subnormal():
    net = Network([6, 3], device="cpu")
    optimizer = Adam()
    net.flat_grads[:] = 1e-3
    optimizer.step(net)
    net.flat_grads[:] = 0
    for _ in range(1500):
        optimizer.step(net)
    mean = np.abs(optimizer.state["mean"])
    assert not ((mean > 0) & (mean < np.finfo(np.float32).tiny)).any()


def test_state_continues_in_the_same_bits():
    def after(steps, optimizer, net, first=0):
        for step in range(first, steps):
            net.flat_grads[:] = np.random.default_rng(step).standard_normal(net.flat_grads.size)
            optimizer.step(net)

    whole, half, rest = (Network([6, 3], device="cpu") for _ in range(3))
    after(20, AdamW(0.01), whole)
    first = AdamW(0.01)
    after(10, first, half)
    rest.flat_parameters[:] = half.flat_parameters
    second = AdamW(0.01)
    second.load_state(first.steps, first.state, rest)
    after(20, second, rest, first=10)
    np.testing.assert_array_equal(whole.flat_parameters, rest.flat_parameters)


def test_an_optimizer_serves_one_network():
    optimizer = SGD()
    optimizer.step(Network([6, 3], device="cpu"))
    with pytest.raises(ValueError, match="belongs to another network"):
        optimizer.step(Network([6, 3], device="cpu"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-1), "lr=-1; expected a finite number ≥ 0"),
        (lambda: SGD(momentum=1.0), "momentum=1.0; expected a finite number ≥ 0 and below 1"),
        (lambda: SGD(nesterov=True), "nesterov=True needs a momentum"),
        (lambda: Adam(beta2=1.0), "beta2=1.0"),
        (lambda: Adam(eps=0), "eps=0; expected a finite number above 0"),
        (lambda: AdamW(weight_decay=-0.1), "weight_decay=-0.1"),
        (lambda: Adam(max_norm=0), "max_norm=0; expected a finite number above 0 or None"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
