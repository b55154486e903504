"""The command run within the test's own process, and data and a model for it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gpu_nn import device
from gpu_nn.cli import main

N_INPUTS = 5
CLASSES = ["circle", "été", "日本, 東京"]


@dataclass
class Done:
    code: int
    out: str
    err: str


Command = Callable[..., Done]
Refused = Callable[..., str]


@pytest.fixture
def command(capsys) -> Command:
    """Runs `gpu-nn` with these arguments."""

    def command(*arguments: object) -> Done:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return command


@pytest.fixture
def refused(command, tmp_path) -> Refused:
    """Asserts that the command ends with this code, one line on stderr and nothing written, and gives the line."""

    def refused(code: int, *arguments: object) -> str:
        before = _tree(tmp_path)
        done = command(*arguments)
        assert (done.code, done.out) == (code, ""), done
        assert done.err.count("\n") == 1
        assert done.err.startswith(f"gpu-nn {arguments[0]}: ")
        assert _tree(tmp_path) == before
        return done.err

    return refused


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.fixture
def process(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts `gpu-nn` as a process of its own; it is ended with the test."""
    started = []

    def process(*arguments: object, unbuffered: str = "", **options) -> subprocess.Popen:
        settings = {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1", "PYTHONUNBUFFERED": unbuffered}
        environment = {**os.environ, **settings}
        command = [sys.executable, "-m", "gpu_nn", *map(str, arguments)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        started.append(subprocess.Popen(command, text=True, env=environment, cwd=tmp_path, **options))
        return started[-1]

    yield process
    for running in started:
        with running:
            running.kill()


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    """Points around three centres, with names for classes."""
    random = np.random.default_rng(0)
    places = np.arange(90) % 3
    x = random.normal(size=(90, N_INPUTS)) + 3 * np.eye(3, N_INPUTS)[places]
    return {"x": x, "y": np.array(CLASSES)[places]}


@pytest.fixture(scope="session")
def data(arrays, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "points.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def quick(arrays, tmp_path_factory) -> tuple[object, ...]:
    """Flags for the points in whole numbers, which a process splits and scales without importing scikit-learn."""
    path = tmp_path_factory.mktemp("quick") / "points.npz"
    np.savez(path, x=(100 + 10 * arrays["x"]).astype(np.uint8), y=arrays["y"])
    return "--data", path, "--test-last", 18


@pytest.fixture(scope="session")
def model(data, tmp_path_factory) -> Path:
    """What `gpu-nn train` made of the data."""
    folder = tmp_path_factory.mktemp("model")
    options = ("--hidden", "8", "--epochs", "20", "--lr", "0.03", "--device", "cpu")
    assert main(["train", "--data", str(data), *options, "--out", str(folder)]) == 0
    return folder / "model.safetensors"


@pytest.fixture
def no_gpu(monkeypatch) -> None:
    """A machine without a GPU, whatever this one has."""
    monkeypatch.setattr(device, "cuda_unavailable_reason", lambda: "CuPy finds no NVIDIA GPU")
