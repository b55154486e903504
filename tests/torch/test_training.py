"""Training in PyTorch: the same gradients as gpu_nn.Network's."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import gpu_nn
from gpu_nn.data import digits
from gpu_nn.torch import softmax_cross_entropy

WIDTHS = [64, 24, 16, 10]


def twins(seed=0):
    """A Network and the torch model with its very weights."""
    net = gpu_nn.Network(WIDTHS, device="cpu", dtype="float64", seed=seed)
    layers = [torch.nn.Linear(*shape, dtype=torch.float64) for shape in pairwise(WIDTHS)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(torch.from_numpy(net.parameters[f"{i}.weight"].T))
            layer.bias.copy_(torch.from_numpy(net.parameters[f"{i}.bias"]))
    return net, layers, torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: gpu_nn.SGD(0.05, 0.9, nesterov=True), lambda p: torch.optim.SGD(p, 0.05, 0.9, nesterov=True)),
        (lambda: gpu_nn.Adam(1e-3), lambda p: torch.optim.Adam(p, 1e-3)),
    ],
    ids=["SGD", "Adam"],
)
def test_gradients_are_those_of_a_network_over_100_steps(ours, theirs):
    net, layers, model = twins()
    our_optimizer, their_optimizer = ours(), theirs(model.parameters())
    x, y = digits()
    x, random = x / 16, np.random.default_rng(0)
    for step in range(100):
        rows = random.integers(0, len(x), 64)
        loss = net.loss_and_grad(x[rows], y[rows])
        their_optimizer.zero_grad()
        their_loss = softmax_cross_entropy(model(torch.from_numpy(x[rows])), torch.from_numpy(y[rows]))
        their_loss.backward()
        assert their_loss.item() == pytest.approx(float(loss), rel=1e-12)
        for i, layer in enumerate(layers):
            for name, found in (("weight", layer.weight.grad.T), ("bias", layer.bias.grad)):
                exact = net.grads[f"{i}.{name}"]
                error = np.abs(found.numpy() - exact).max() / np.abs(exact).max()
                assert error <= 1e-12, (step, i, name)
        our_optimizer.step(net)
        their_optimizer.step()
