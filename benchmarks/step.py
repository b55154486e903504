"""python -m benchmarks step: a training step on the CPU, ours beside scikit-learn's MLPClassifier.

Both run whole epochs (shuffling and gathering included) in one process, by turns, on the same data, with Adam in
float32, no weight decay, and the same batch size. Ours computes the full cost, scikit-learn the everyday one.
"""

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.results import machine, table, write
from gpu_nn import Adam, Network, Trainer

# Widths, batch size, and batches in an epoch.
NETWORKS = {
    "A1": ([784, 256, 128, 10], 128, 60),
    "A2": ([784, 1024, 1024, 10], 256, 10),
    "A3": ([64, 64, 10], 32, 600),
}
GOALS = {"A1": 1.8, "A2": 1.6, "A3": 3.0}  # times scikit-learn's speed
ROUNDS = 9


def our_epoch(widths: list[int], batch: int, x: np.ndarray, y: np.ndarray) -> Callable[[], object]:
    trainer = Trainer(Network(widths, device="cpu"), Adam(1e-3), batch_size=batch)
    return lambda: trainer.fit(x, y, epochs=1)


def sklearn_epoch(widths: list[int], batch: int, x: np.ndarray, y: np.ndarray) -> Callable[[], object]:
    from sklearn.neural_network import MLPClassifier

    peer = MLPClassifier(widths[1:-1], batch_size=batch, alpha=0, random_state=0)
    classes = np.arange(widths[-1])
    return lambda: peer.partial_fit(x, y, classes=classes)


def measured(name: str) -> dict[str, Any]:
    widths, batch, batches = NETWORKS[name]
    random = np.random.default_rng(0)
    x = random.random((batch * batches, widths[0]), dtype=np.float32)
    y = random.integers(0, widths[-1], len(x))
    epochs = {"gpu_nn": our_epoch(widths, batch, x, y), "scikit-learn": sklearn_epoch(widths, batch, x, y)}
    seconds: dict[str, list[float]] = {peer: [] for peer in epochs}
    for turn in range(ROUNDS + 1):
        for peer, epoch in epochs.items():
            began = time.perf_counter()
            epoch()
            if turn:  # the first is the warm-up
                seconds[peer].append((time.perf_counter() - began) / batches)
    ratios = np.array(seconds["scikit-learn"]) / np.array(seconds["gpu_nn"])
    return {
        "network": name,
        "widths": widths,
        "batch": batch,
        "goal": GOALS[name],
        "ratio": float(np.median(ratios)),
        "microseconds": {
            peer: dict(zip(("low", "median", "high"), (np.percentile(times, (10, 50, 90)) * 1e6).tolist(), strict=True))
            for peer, times in seconds.items()
        },
    }


def markdown(result: dict[str, Any]) -> str:
    head = ["network, batch", "gpu_nn, µs a step", "scikit-learn, µs a step", "times as fast"]
    lines = []
    for row in result["networks"]:
        times = [row["microseconds"][peer] for peer in ("gpu_nn", "scikit-learn")]
        cells = [f"{t['median']:.0f} ({t['low']:.0f}–{t['high']:.0f})" for t in times]
        lines.append([f"{'-'.join(map(str, row['widths']))}, {row['batch']}", *cells, f"{row['ratio']:.1f}"])
    return table(head, lines)


def main() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        networks = [measured(name) for name in NETWORKS]
    result: dict[str, Any] = {"machine": machine("numpy", "scikit-learn"), "rounds": ROUNDS, "networks": networks}
    write("step", result)
    print(markdown(result))
    for row in networks:
        print(f"{row['network']}: {row['ratio']:.2f} × scikit-learn, goal {row['goal']}")
