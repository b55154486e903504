"""Optimizer steps over the flat parameter vector, in blocks that stay in the cache through all passes.

Arrays of one element hold what changes from step to step: learning_rate and norm are float64, step is int64,
gradient_scale is of the gradient's type. A step uses gradient_scale · gradient; with a gradient_scale of NaN
it changes nothing. Weight decay applies to the first `decayed` elements, where the weights lie.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpu_nn.kernels.numpy_kernels.rows import scratch

_BLOCK_ELEMENTS = 1 << 15


def _blocks(decayed: int, *arrays: np.ndarray | None) -> Iterator[tuple[bool, Sequence[Any]]]:
    """The arrays in blocks, none of them across `decayed`, each with whether it lies before it."""
    size = arrays[0].size if arrays[0] is not None else 0
    if size <= _BLOCK_ELEMENTS and not 0 < decayed < size:
        yield decayed > 0, arrays
        return
    for first, last, is_decayed in ((0, decayed, True), (decayed, size, False)):
        for start in range(first, last, _BLOCK_ELEMENTS):
            block = slice(start, min(start + _BLOCK_ELEMENTS, last))
            yield is_decayed, [None if array is None else array[block] for array in arrays]


def _seen_gradient(
    parameter: np.ndarray, gradient: np.ndarray, gradient_scale: np.ndarray | None, coupled_decay: float
) -> np.ndarray:
    """gradient_scale · gradient + coupled_decay · parameter; the gradient itself where that is all."""
    if gradient_scale is None and not coupled_decay:
        return gradient
    seen = scratch.take("gradient", gradient.shape, gradient.dtype)
    if gradient_scale is None:
        np.multiply(parameter, coupled_decay, out=seen)
        seen += gradient
        return seen
    np.multiply(gradient, float(gradient_scale[0]), out=seen)
    if coupled_decay:
        decay = scratch.take("update", gradient.shape, gradient.dtype)
        seen += np.multiply(parameter, coupled_decay, out=decay)
    return seen


def sgd(
    parameter: np.ndarray,
    gradient: np.ndarray,
    velocity: np.ndarray | None,
    learning_rate: np.ndarray,
    *,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decayed: int,
    gradient_scale: np.ndarray | None = None,
) -> None:
    """v ← momentum·v + g;  parameter ← parameter - η v, with Nesterov - η (g + momentum·v).  g includes weight_decay·w.

    velocity is None without momentum.
    """
    if gradient_scale is not None and math.isnan(gradient_scale[0]):
        return
    eta = learning_rate.item()
    for is_decayed, (p, g, v) in _blocks(decayed if weight_decay else 0, parameter, gradient, velocity):
        g = _seen_gradient(p, g, gradient_scale, weight_decay if is_decayed else 0.0)
        update = scratch.take("update", p.shape, p.dtype)
        if v is None:
            p -= np.multiply(g, eta, out=update)
            continue
        v *= momentum
        v += g
        if nesterov:
            np.multiply(v, momentum, out=update)
            update += g
            update *= eta
        else:
            np.multiply(v, eta, out=update)
        p -= update


def adam(
    parameter: np.ndarray,
    gradient: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    learning_rate: np.ndarray,
    step: np.ndarray,
    *,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    decayed: int,
    gradient_scale: np.ndarray | None = None,
) -> None:
    """One step of Adam (Kingma & Ba 2015), or of AdamW (Loshchilov & Hutter 2019) when decoupled; step counts from 1.

    mean and square hold the moments without their factors: Σ_i β₁^i g and Σ_i β₂^i g², so a step multiplies each once.
    With m = (1-β₁) mean, v = (1-β₂) square and c_i = 1 - β_i^step,

        parameter ← parameter - η (m/c₁) / (√(v/c₂) + ε) = parameter - η' mean / (√square + ε')
    """
    if gradient_scale is not None and math.isnan(gradient_scale[0]):
        return
    t = step.item()
    eta = learning_rate.item()
    root = math.sqrt((1 - beta2**t) / (1 - beta2))
    eta_scaled = eta * (1 - beta1) / (1 - beta1**t) * root
    eps_scaled = eps * root
    for is_decayed, (p, g, m, v) in _blocks(decayed if weight_decay else 0, parameter, gradient, mean, square):
        decay = weight_decay if is_decayed else 0.0
        g = _seen_gradient(p, g, gradient_scale, 0.0 if decoupled else decay)
        update = scratch.take("update", p.shape, p.dtype)
        m *= beta1
        m += g
        np.square(g, out=update)
        v *= beta2
        v += update
        np.sqrt(v, out=update)
        update += eps_scaled
        np.divide(m, update, out=update)
        update *= eta_scaled
        if decoupled and decay:
            p *= 1 - eta * decay
        p -= update


def gradient_norm(gradient: np.ndarray, out: np.ndarray) -> None:
    """out_0 = √(Σ g²)."""
    total = 0.0
    for start in range(0, gradient.size, _BLOCK_ELEMENTS):
        g = gradient[start : start + _BLOCK_ELEMENTS]
        with np.errstate(over="ignore"):
            square = float(g @ g)
        if not 1e-30 < square < math.inf:  # beyond float32's comfort
            square = float(np.square(g, dtype=np.float64).sum())
        total += square
    out[0] = math.sqrt(total)


def clip_scale(norm: np.ndarray, max_norm: float, out: np.ndarray) -> None:
    """out_0 = min(1, max_norm / norm)."""
    out[0] = min(1.0, max_norm / float(norm[0])) if norm[0] else 1.0


def flush_subnormals(state: np.ndarray) -> None:
    """Set to 0 what is about to decay into subnormal numbers, with which a CPU computes fifty times slower.

    A moment of a unit that no longer gets a gradient shrinks by a factor each step and would stay there for good.
    """
    threshold = np.finfo(state.dtype).tiny * 2.0**26
    for start in range(0, state.size, _BLOCK_ELEMENTS):
        block = state[start : start + _BLOCK_ELEMENTS]
        block *= np.abs(block) >= threshold


def increment(counter: np.ndarray) -> None:
    """counter_0 += 1."""
    counter[0] += 1
