"""A training step on the CPU, ours beside the peers', and the matrix products that it cannot do without.

All run whole epochs (shuffling and gathering included) by turns in one process, on the same data, with Adam(1e-3) in
float32, no weight decay, and the same batch size. The peers compute the everyday cross entropy, for the full cost turns
NaN as they would write it; ours is measured with both.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.results import table
from benchmarks.step_parts import parts
from benchmarks.step_peers import Epoch, peer_epochs
from benchmarks.timing import EVERYDAY, OURS, OwnClock, cell, interleaved, ratios, spreads
from gpu_nn import Adam, Network, Trainer

# Widths, batch size, and batches in an epoch.
NETWORKS = {
    "A1": ([784, 256, 128, 10], 128, 60),
    "A2": ([784, 1024, 1024, 10], 256, 10),
    "A3": ([64, 64, 10], 32, 600),
}
# Times the peer's speed, ours with the full cost.
GOALS = {
    "A1": {"torch eager": 1.5, "scikit-learn": 2.2, "best jax": 0.9},
    "A2": {"torch eager": 1.05, "scikit-learn": 2.0, "best jax": 0.95},
    "A3": {"torch eager": 4.5, "scikit-learn": 4.0, "best jax": 0.45},
}
FLOOR = "matrix products"
COLUMNS = ("scikit-learn", "torch eager", "torch.compile", "jax, Python loop", "jax, lax.scan", "thinc")


def our_epoch(widths: list[int], batch: int, x: np.ndarray, y: np.ndarray, complement_weight: float) -> Epoch:
    net = Network(widths, device="cpu")
    trainer = Trainer(net, Adam(1e-3), batch_size=batch, complement_weight=complement_weight)
    # The history's seconds: `fit` checks the data each time before its first epoch, which no peer does.
    return OwnClock(lambda: trainer.fit(x, y, epochs=1)[-1].seconds)


def products_epoch(widths: list[int], batch: int, batches: int) -> Epoch:
    """The matrix products of an epoch alone: a·w and aᵀ·dz of every layer, dz·wᵀ of all but the first."""
    random = np.random.default_rng(0)
    calls = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        a, w, dz = (
            random.random(shape, dtype=np.float32) for shape in ((batch, inputs), (inputs, outputs), (batch, outputs))
        )
        calls += [(a, w, np.empty_like(dz)), (a.T, dz, np.empty_like(w))]
        if i:
            calls.append((dz, w.T, np.empty_like(a)))

    def epoch() -> None:
        for _ in range(batches):
            for a, b, out in calls:
                np.dot(a, b, out=out)

    return epoch


def measured(name: str, quick: bool) -> dict[str, Any]:
    widths, batch, batches = NETWORKS[name]
    batches = 2 if quick else batches
    random = np.random.default_rng(0)
    x = random.random((batch * batches, widths[0]), dtype=np.float32)
    y = random.integers(0, widths[-1], len(x))
    epochs = {
        OURS: our_epoch(widths, batch, x, y, 1.0),
        EVERYDAY: our_epoch(widths, batch, x, y, 0.0),
        FLOOR: products_epoch(widths, batch, batches),
        **dict(peer_epochs(widths, batch, x, y)),
    }
    seconds = interleaved(epochs, rounds=1 if quick else 9)
    jax = [name for name in seconds if name.startswith("jax")]
    if jax:
        seconds["best jax"] = min((seconds[name] for name in jax), key=np.median)
    found = ratios(seconds)
    return {
        "network": name,
        "widths": widths,
        "batch": batch,
        "goals": GOALS[name],
        "times_as_fast": found,
        "share_of_floor": found[FLOOR],
        "microseconds": spreads(seconds, batches),
        "parts_microseconds": parts(widths, batch, x, y, epochs=1 if quick else 5),
    }


def measure(quick: bool) -> dict[str, Any]:
    return {"networks": [measured(name, quick) for name in (["A3"] if quick else NETWORKS)]}


def markdown(result: dict[str, Any]) -> str:
    head = ["µs a step", *(f"{'-'.join(map(str, row['widths']))}, {row['batch']}" for row in result["networks"])]
    lines = []
    for name in (OURS, EVERYDAY, FLOOR, *COLUMNS):
        cells = []
        for row in result["networks"]:
            ratio = row["times_as_fast"].get(name)
            said = f", {ratio:.2f} ×" if ratio is not None and name in COLUMNS else ""
            cells.append(cell(row["microseconds"].get(name)) + said)
        lines.append([name, *cells])
    lines.append(["our share of matrix products", *(f"{100 * r['share_of_floor']:.0f} %" for r in result["networks"])])
    for name in max((row["parts_microseconds"] for row in result["networks"]), key=len):
        shares = [_share(name, row["parts_microseconds"]) for row in result["networks"]]
        lines.append([f"of ours: {name if ' ' in name else f'`{name}`'}", *shares])
    return table(head, lines)


def _share(name: str, parts: dict[str, float]) -> str:
    return f"{100 * parts.get(name, 0.0) / sum(parts.values()):.0f} %"


def goals(result: dict[str, Any]) -> list[tuple[str, float | None, float]]:
    """What, how many times as fast as it ours is (None where it is absent), and the goal."""
    return [
        (f"{row['network']} × {peer}", row["times_as_fast"].get(peer), goal)
        for row in result["networks"]
        for peer, goal in row["goals"].items()
    ]
