"""python -m benchmarks estimators [--mnist FOLDER]: test accuracy beside scikit-learn's MLPClassifier, equal settings.

Both get the same rows, scaled alike, and scikit-learn's default settings; gpu_nn also with the standard cross entropy
(complement_weight=0). digits, wine and breast cancer ship with scikit-learn; a stratified fifth is the test split,
another one for each seed. FOLDER: the 10,000 images of MNIST's test part as IDX files, whose last 2,000 are the test
split. Writes benchmarks/results/estimators.json.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.neural_network import MLPClassifier as SklearnClassifier
from sklearn.preprocessing import StandardScaler

from benchmarks.results import machine, table, write
from benchmarks.timing import label
from gpu_nn import MLPClassifier
from gpu_nn.data import digits
from gpu_nn.data.datasets import read, split

SEEDS = range(5)
SETTINGS: dict[str, Any] = {"hidden_layer_sizes": (100,), "max_iter": 200}
MARGIN = 0.5  # percentage points that gpu_nn may lie below scikit-learn

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def models(seed: int) -> dict[str, Any]:
    ours: dict[str, Any] = {**SETTINGS, "device": "cpu", "random_state": seed}
    return {
        "gpu_nn": MLPClassifier(**ours),
        "gpu_nn, everyday cost": MLPClassifier(**ours, complement_weight=0.0),
        "scikit-learn": SklearnClassifier(**SETTINGS, random_state=seed),
    }


def sets(mnist: str | None) -> Iterator[tuple[str, list[Split]]]:
    """Name and, for each seed, training and test rows and labels in float32."""
    yield "digits", [_split("digits", digits(), seed, divide_by=16) for seed in SEEDS]
    for name, load in (("wine", load_wine), ("breast cancer", load_breast_cancer)):
        yield name, [_split(name, load(return_X_y=True), seed) for seed in SEEDS]
    if mnist is not None:
        data = read(mnist, test_last=2000)
        x, x_test = ((part / 255).astype(np.float32) for part in (data.x, data.x_test))
        yield "MNIST-10k", [(x, data.y, x_test, data.y_test)] * len(SEEDS)


def _split(name: str, data: tuple[np.ndarray, np.ndarray], seed: int, divide_by: float | None = None) -> Split:
    x, y, x_test, y_test = split(name, *data, 0.2, None, seed)
    if divide_by is not None:
        x, x_test = x / divide_by, x_test / divide_by
    else:
        scaler = StandardScaler().fit(x)
        x, x_test = scaler.transform(x), scaler.transform(x_test)
    return x.astype(np.float32), y, x_test.astype(np.float32), y_test


def measured(name: str, splits: list[Split]) -> dict[str, Any]:
    row: dict[str, Any] = {"data": name, "train_rows": len(splits[0][0]), "test_rows": len(splits[0][2]), "models": {}}
    for seed, (x, y, x_test, y_test) in zip(SEEDS, splits, strict=True):
        for who, model in models(seed).items():
            began = time.perf_counter()
            model.fit(x, y)
            seconds = time.perf_counter() - began
            result = {"accuracy": float(model.score(x_test, y_test)), "epochs": model.n_iter_, "seconds": seconds}
            row["models"].setdefault(who, []).append(result)
    return row


def mean(row: dict[str, Any], model: str, field: str) -> float:
    return float(np.mean([run[field] for run in row["models"][model]]))


def markdown(result: dict[str, Any]) -> str:
    """Mean accuracy in percent, with the lowest and highest, and below it the epochs and seconds of a fit."""
    names = list(result["sets"][0]["models"])
    lines = []
    for row in result["sets"]:
        cells = []
        for name in names:
            runs = [100 * run["accuracy"] for run in row["models"][name]]
            cells.append(
                f"{np.mean(runs):.2f} ({min(runs):.1f}–{max(runs):.1f}), {mean(row, name, 'epochs'):.0f} epochs, "
                f"{mean(row, name, 'seconds'):.1f} s"
            )
        lines.append([f"{row['data']}, {row['train_rows']:,} + {row['test_rows']:,}", *cells])
    return table(["data, rows to train + to test", *(f"{label(name)}, %" for name in names)], lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks estimators", description=__doc__)
    parser.add_argument("--mnist", metavar="FOLDER", help="IDX files of 10,000 images; without it that row is left out")
    mnist = parser.parse_args().mnist
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both say where max_iter ends a fit
        rows = [measured(*data) for data in sets(mnist)]
    settings = {**SETTINGS, "seeds": list(SEEDS), "margin_points": MARGIN}
    result: dict[str, Any] = {"machine": machine("numpy", "scikit-learn"), "settings": settings, "sets": rows}
    write("estimators", result)
    print(markdown(result))
    for row in rows:
        for name in list(row["models"])[:-1]:
            points = 100 * (mean(row, name, "accuracy") - mean(row, "scikit-learn", "accuracy"))
            said = "within" if points >= -MARGIN else "BELOW"
            print(f"{row['data']}: {name} {points:+.2f} points from scikit-learn, {said} the margin of -{MARGIN}")


if __name__ == "__main__":
    main()
