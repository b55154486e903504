"""Trainings whose parameters are on record, to the last bit, in the files beside this module.

`python -m tests.recorded.trainings FOLDER` writes the files anew. Only a change that is meant to change the bits does.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
from safetensors.numpy import load_file, save_file

import gpu_nn
from gpu_nn import BatchNorm, Dense, Dropout, InputNoise, LayerNorm, Network, Standardize, Trainer
from gpu_nn.data import stream
from gpu_nn.schedules import Cosine, ReduceOnPlateau, WarmUp
from gpu_nn.training import Checkpoints, EarlyStopping, LearningRateMonitor, Trigger
from tests.cuda_emulator.device import emulated_device

FILES = Path(__file__).parent / "files"

# Rows that neither the batch nor a window divides.
N, INPUTS, CLASSES, BATCH = 203, 7, 5, 32


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Labelled rows whose values have at most 8 bits: they are the same from any generator of normal numbers."""
    random = np.random.default_rng(7)
    y = random.integers(0, CLASSES, N)
    x = random.integers(-64, 64, (N, INPUTS)) / 32 + np.eye(CLASSES, INPUTS)[y] * 2
    return x.astype(np.float32), y


def network(dtype: str = "float32", device: str = "cpu") -> Network:
    """A network of one of each layer."""
    layers = [Standardize(), InputNoise(0.1), Dense(16, "relu"), Dropout(0.2), Dense(12, bias=False), BatchNorm("tanh")]
    layers += [Dense(12), LayerNorm("gelu"), Dense(CLASSES)]
    net = Network(layers, n_inputs=INPUTS, device=device, dtype=dtype, seed=3)
    net.state["0.shift"].fill(0.25)
    net.state["0.scale"].fill(0.75)
    return net


def adam() -> Any:
    return gpu_nn.Adam(WarmUp(5, ReduceOnPlateau(0.02, patience=1)), weight_decay=0.01)


def sgd() -> Any:
    return gpu_nn.SGD(Cosine(0.1, steps=30), momentum=0.9, max_norm=1.0)


def learned(net: Network, trainer: Trainer) -> dict[str, np.ndarray]:
    """What a training leaves: parameters, running means and variances, and the losses of its epochs."""
    losses = [[record.loss, record.validation_loss or 0.0] for record in trainer.history.epochs]
    state = {name: array for name, array in net.state.items() if array.dtype.kind == "f"}
    arrays = {name: net.device.to_host(array) for name, array in {"parameters": net.flat_parameters, **state}.items()}
    return {**arrays, "losses": np.array(losses)}


def of_arrays(
    dtype: str = "float32", resume: Any = None, folder: Any = None, optimizer: Any = adam, device: str = "cpu"
) -> Any:
    """A training on arrays. folder: where it leaves a checkpoint of every fifth step."""
    (x, y), net = rows(), network(dtype, device)
    callbacks: list[Any] = [EarlyStopping(patience=9, restore_best=False), LearningRateMonitor()]
    if folder is not None:
        callbacks.append(Checkpoints(folder, Trigger(steps=5), keep=100))
    options = {"class_weight": np.linspace(0.5, 1.5, CLASSES), "label_smoothing": 0.05, "complement_weight": 0.75}
    trainer = Trainer(net, optimizer(), batch_size=BATCH, seed=5, callbacks=callbacks, **options)
    weight = np.linspace(1, 2, N)
    trainer.fit(x, y, epochs=4, validation=(x[:50], y[:50]), sample_weight=weight, resume=resume)
    return learned(net, trainer)


def of_stream(resume: Any = None, folder: Any = None) -> Any:
    """A training on a stream of three windows, the last one short."""
    (x, y), net = rows(), network()
    callbacks = [] if folder is None else [Checkpoints(folder, Trigger(steps=5), keep=100)]
    training = stream(x, y, block_rows=10, window_rows=70)
    validation = stream(x[:151], y[:151], block_rows=10, window_rows=40)
    trainer = Trainer(net, sgd(), batch_size=BATCH, seed=5, callbacks=callbacks)
    trainer.fit(training, epochs=4, validation=validation, resume=resume)
    return learned(net, trainer)


def on_the_emulated_device() -> Any:
    """A training in mixed precision by the CUDA kernels."""
    with emulated_device(nvmath=True) as device:
        return of_arrays("mixed_float16", device=device.name)


def by_the_estimator() -> Any:
    """A training by MLPClassifier, with early stopping."""
    x, y = rows()
    options = {"early_stopping": True, "n_iter_no_change": 3, "device": "cpu"}
    classifier = gpu_nn.MLPClassifier((12,), max_iter=8, batch_size=BATCH, random_state=1, **options)
    classifier.fit(x, y)
    return {"loss_curve": np.array(classifier.loss_curve_), "probabilities": classifier.predict_proba(x)}


CHECKPOINTS = {
    "arrays": FILES / "checkpoint_of_arrays.safetensors",
    "stream": FILES / "checkpoint_of_stream.safetensors",
}
MODEL = FILES / "model.safetensors"

# Each by the name of the file of what it leaves.
TRAININGS: dict[str, Callable[[], dict[str, np.ndarray]]] = {
    "arrays_float32": of_arrays,
    "arrays_float64": lambda: of_arrays("float64"),
    "emulated_mixed_float16": on_the_emulated_device,
    "arrays_sgd": lambda: of_arrays(optimizer=sgd),
    "stream": of_stream,
    "estimator": by_the_estimator,
}

# What resumes from the checkpoint of that name, and the training it ends like.
RESUMED: dict[str, tuple[str, Callable[[], dict[str, np.ndarray]]]] = {
    "arrays": ("arrays_float32", lambda: of_arrays(resume=CHECKPOINTS["arrays"])),
    "stream": ("stream", lambda: of_stream(resume=CHECKPOINTS["stream"])),
}

# For so many ranks, each of whose processes runs it; rank 0 leaves its parameters. Batches have 4 micro-batches, so any
# number of ranks that divides 4 learns the same bits.
ON_RANKS = """
import sys
import numpy as np
import gpu_nn
from gpu_nn.data import stream
from gpu_nn.distributed import init_process_group
from tests.recorded import trainings

kind, out = sys.argv[1:]
communicator, device = init_process_group("cpu")
with communicator:
    x, y = trainings.rows()
    net = gpu_nn.Network([trainings.INPUTS, 16, trainings.CLASSES], activation="tanh", device=device, seed=3)
    options = {"micro_batches": 4, "communicator": communicator}
    trainer = gpu_nn.Trainer(net, trainings.adam(), batch_size=trainings.BATCH, **options)
    data = (x, y) if kind == "arrays" else (stream(x, y, block_rows=10, window_rows=70),)
    trainer.fit(*data, epochs=4, validation=(x[:50], y[:50]))
    if communicator.rank == 0:
        np.savez(out, parameters=net.flat_parameters)
"""


def check(name: str, found: dict[str, np.ndarray]) -> None:
    """Raises AssertionError where the arrays are not those on record.

    Other BLAS libraries and processors round otherwise: there the figures are held to a tolerance.
    """
    expected = load_file(FILES / f"{name}.safetensors")
    assert found.keys() == expected.keys()
    is_same_environment = json.loads((FILES / "environment.json").read_text()) == environment()
    for key, array in expected.items():
        if is_same_environment:
            assert np.asarray(found[key]).tobytes() == array.tobytes(), key
        rtol, atol = (0.05, 0.02) if "float16" in name else (1e-3, 1e-4)
        np.testing.assert_allclose(found[key], array, rtol=rtol, atol=atol)


def environment() -> dict[str, Any]:
    """What bits depend on beside this code: NumPy, its BLAS, SciPy, and the instructions that they find here."""
    from numpy._core._multiarray_umath import __cpu_features__

    libraries = [library for library in threadpoolctl.threadpool_info() if "numpy" in library["filepath"]]
    return {
        "numpy": np.__version__,
        "scipy": version("scipy"),
        "blas": sorted([library[key] for key in ("internal_api", "version", "architecture")] for library in libraries),
        "cpu": sorted(name for name, is_there in __cpu_features__.items() if is_there),
    }


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, training in TRAININGS.items():
        save_file(
            {key: np.ascontiguousarray(array) for key, array in training().items()}, folder / f"{name}.safetensors"
        )
    for name, training in (("arrays", of_arrays), ("stream", of_stream)):
        with tempfile.TemporaryDirectory() as checkpoints:
            training(folder=checkpoints)
            # In the middle of the second epoch.
            content = (Path(checkpoints) / "steps-000000000010.safetensors").read_bytes()
        (folder / CHECKPOINTS[name].name).write_bytes(content)
    net = network()
    net.classes, net.feature_names, net.target_name = list("abcde"), [f"column {i}" for i in range(INPUTS)], "letter"
    gpu_nn.save(net, folder / MODEL.name)
    x, _ = rows()
    save_file({"probabilities": net.predict_proba(x)}, folder / "model_probabilities.safetensors")
    for kind in ("arrays", "stream"):
        with tempfile.TemporaryDirectory() as out:
            left = Path(out) / "left.npz"
            subprocess.run(["mpiexec", "-n", "2", sys.executable, "-c", ON_RANKS, kind, str(left)], check=True)
            save_file(dict(np.load(left)), folder / f"ranks_{kind}.safetensors")
    (folder / "environment.json").write_text(json.dumps(environment(), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
