"""The cost and its gradient with mpmath: what tests and the accuracy table compare with.

`literal` evaluates the equations of cuda_src/README.md as they stand, in O(m²), with the digits that the logits need.
`cost_and_grad` is for many classes: it sums each 1-p_t from the other classes' terms, so nothing cancels and 60 digits
are enough at every scale. A test compares the two.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

from mpmath import mp, mpf, workdps

Numbers = Sequence[float]
_Parameters = ParamSpec("_Parameters")
_Answer = TypeVar("_Answer")


class Exact(NamedTuple):
    """One row: its cost C, its gradient ∂C/∂z, and the largest sum of the absolute terms of one ∂C/∂z_j, from which
    `cancelled` follows."""

    cost: mpf
    grad: list[mpf]
    terms: mpf

    def cost_error(self, cost: float, tiny: float) -> float:
        """Relative error of `cost`; a difference up to `tiny`, the smallest normal number, counts 0."""
        return float(max(abs(mpf(float(cost)) - self.cost) - mpf(tiny), 0) / max(self.cost, mpf(tiny)))

    def grad_error(self, grad: Numbers, tiny: float) -> float:
        """|Δg|∞/|g|∞ of the row, with `tiny` as in `cost_error`.

        Where the exact gradient cancels to less than a twentieth of its own terms, as near a minimum, the error is
        relative to that twentieth.
        """
        worst = max(abs(mpf(float(found)) - exact) for found, exact in zip(grad, self.grad, strict=True))
        return float(max(worst - mpf(tiny), 0) / max(self.largest, self.terms / 20, mpf(tiny)))

    @property
    def largest(self) -> mpf:
        """|g|∞."""
        return max(abs(g) for g in self.grad)

    @property
    def cancelled(self) -> bool:
        """Whether the exact gradient is less than a twentieth of its own terms."""
        return bool(self.largest < self.terms / 20)


def digits_for(z: Numbers) -> int:
    """Enough digits that 1 - soft(z, k) keeps 40 of them."""
    finite = [value for value in map(float, z) if value > float("-inf")]
    return 60 + int((max(finite) - min(finite)) / 2.3)


def soft(z: Numbers, j: int, but: int | None = None) -> mpf:
    """soft(z, j), or soft(z_{≠but}, j)."""
    return mp.exp(mpf(float(z[j]))) / sum(mp.exp(mpf(float(v))) for s, v in enumerate(z) if s != but)


def _cached(function: Callable[_Parameters, _Answer]) -> Callable[_Parameters, _Answer]:
    """Keep the answers for the last rows: one takes up to a second, and every backend and test of a row asks for it."""
    kept = lru_cache(maxsize=1024)(function)

    def hashable(value: Any) -> Any:
        return tuple(map(float, value)) if hasattr(value, "__len__") else value

    @wraps(function)
    def cached(*arguments: _Parameters.args, **options: _Parameters.kwargs) -> _Answer:
        return kept(*map(hashable, arguments), **{name: hashable(value) for name, value in options.items()})

    return cached


@_cached
def literal(z: Numbers, y: Numbers) -> tuple[mpf, list[mpf]]:
    """C and ∂C/∂z_j = m soft(z,j) - y_j - Σ_{t≠j} (1-y_t) soft(z_{≠t}, j)."""
    m = len(z)
    with workdps(digits_for(z)):
        targets = [mpf(float(v)) for v in y]
        p = [soft(z, t) for t in range(m)]
        cost = -sum(targets[t] * mp.log(p[t]) + (1 - targets[t]) * mp.log(1 - p[t]) for t in range(m))
        grad = [
            m * p[j] - targets[j] - sum((1 - targets[t]) * soft(z, j, but=t) for t in range(m) if t != j)
            for j in range(m)
        ]
        return cost, grad


@_cached
def cost_and_grad(
    z: Numbers,
    y: Numbers,
    complement_weight: float = 1.0,
    class_weight: Numbers | None = None,
    label_smoothing: float = 0.0,
) -> Exact:
    """C and ∂C/∂z of one row, with A_t = w_t y_t and B_t = λ w_t (1-y_t) of the smoothed y; -inf masks a class."""
    m = len(z)
    with workdps(60):
        smoothing = mpf(label_smoothing)
        w = [mpf(1)] * m if class_weight is None else [mpf(float(v)) for v in class_weight]
        targets = [(1 - smoothing) * mpf(float(v)) + smoothing / m for v in y]
        a = [w[t] * targets[t] for t in range(m)]
        b = [mpf(complement_weight) * w[t] * (1 - targets[t]) for t in range(m)]
        logits = [mpf(float(v)) for v in z]
        top = max(logits)
        power = [mp.exp(v - top) for v in logits]
        total = sum(power)
        others = _sums_of_the_others(power)
        p = [v / total for v in power]
        c = [v / total for v in others]
        cost = mpf(0)
        for t in range(m):
            cost += a[t] * mp.log1p(others[t] / power[t]) if a[t] else 0  # -ln p_t
            cost += b[t] * mp.log1p(power[t] / others[t]) if b[t] else 0  # -ln(1-p_t)
        odds = [b[t] * p[t] / c[t] if b[t] else mpf(0) for t in range(m)]
        a_others, odds_others = _sums_of_the_others(a), _sums_of_the_others(odds)
        gained = [(a_others[j] + b[j]) * p[j] for j in range(m)]
        lost = [a[j] * c[j] + p[j] * odds_others[j] for j in range(m)]
        grad = [gained[j] - lost[j] for j in range(m)]
        return Exact(cost, grad, max(gained[j] + lost[j] for j in range(m)))


def _sums_of_the_others(values: list[mpf]) -> list[mpf]:
    """Σ_{s≠t} values_s for every t, by sums from both ends."""
    before, after = [mpf(0)], [mpf(0)]
    for value in values[:-1]:
        before.append(before[-1] + value)
    for value in values[:0:-1]:
        after.append(after[-1] + value)
    return [x + y for x, y in zip(before, reversed(after), strict=True)]
