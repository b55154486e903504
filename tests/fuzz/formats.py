"""What the fuzz reads: each format's good files, its lying ones, and every way in which such a file is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random

import numpy as np

import gpu_nn
from gpu_nn.cli import configuration
from gpu_nn.data import Target, read, read_csv, read_idx, read_idx_folder, read_inputs, read_npy, read_npz, read_parquet
from gpu_nn.data.npy import NpyReader
from gpu_nn.errors import DataError
from gpu_nn.training import checkpoint
from gpu_nn.training.checkpoint import DamagedCheckpoint, newest
from tests.fuzz import files, models, trainings
from tests.fuzz.mutations import mutated

_Good = Callable[[], Sequence[bytes]]


class Wrong(AssertionError):
    """A reader that gave what it should not have given."""


@dataclass(frozen=True)
class Format:
    """good, lying: what files are made of. names: under which of them an input is filed, by lot. reads: each is called
    with the path; the first says whether the input was read. beside: files that lie beside it, by name. lies: the share
    of inputs that are made of lying files."""

    good: _Good
    lying: Callable[[Random], bytes]
    names: tuple[str, ...]
    reads: tuple[Callable[[Path], object], ...]
    beside: Callable[[], dict[str, bytes]] = dict
    lies: float = 0.3

    def input(self, key: str, payload: bytes) -> tuple[str, bytes]:
        """Name and content of the input that the key stands for. payload: a pickle that shows when it is unpickled."""
        random = Random(key)
        good = _made(self.good)
        name = random.choice(self.names)
        if random.random() < self.lies:
            content = self.lying(random)
            return name, content if random.random() < 0.7 else mutated(content, (*good, payload), random)
        return name, mutated(random.choice(good), (*good, payload), random)


@cache
def _made(good: _Good) -> tuple[bytes, ...]:
    return tuple(good())


def _read(path: Path, target: str | int | None = None) -> object:
    return read(str(path), target=target)


def _read_inputs(path: Path, n_inputs: int | None = None) -> object:
    return read_inputs(str(path), None, n_inputs)


def _of_its_folder(way: Callable[[Path], object], path: Path) -> object:
    return way(path.parent)


def _idx_folder() -> dict[str, bytes]:
    images, labels = files.idx()[:2]
    return {
        f"{part}-{kind}-idx{rank}-ubyte": file
        for part in ("train", "t10k")
        for kind, rank, file in (("images", 3, images), ("labels", 1, labels))
    }


_NEWEST = checkpoint.name(2)


def _before() -> dict[str, bytes]:
    return {checkpoint.name(1): models.whole_checkpoint(1)}


def _newest(path: Path) -> object:
    """The newest whole checkpoint, which is the one at `path` or, once that is damaged, the one before."""
    try:
        found, damages = newest(path.parent)
    except DataError as error:
        if "upgrade" not in str(error):
            raise Wrong(f"did not fall back: {error}") from error
        raise
    if found.path == path:
        return found
    if found.training["position"] != {"steps": 1} or len(damages) != 1:
        raise Wrong(f"{found.path.name} with {found.training['position']} and {damages}")
    raise DamagedCheckpoint(damages[0])


def _rows(path: Path) -> np.ndarray | None:
    """All rows of an npy file, by the reader of some."""
    rows = NpyReader(path)
    return rows[0 : len(rows)] if rows.ndim else None


def _of_a_table(reader: Callable[..., object]) -> tuple[Callable[[Path], object], ...]:
    absent = Target("no such column")
    ways = (partial(reader, target=Target()), partial(reader, target=Target(0)), partial(reader, target=absent))
    return (*ways, _read, partial(_read_inputs, n_inputs=3))


FORMATS = {
    "npz": Format(files.npz, files.lying_npz, ("a.npz",), (read_npz, _read, _read_inputs)),
    "npy": Format(
        files.npy,
        files.lying_npy,
        ("a.npy",),
        (read_npy, _rows, partial(_read, target=-1), _read_inputs),
    ),
    "CSV": Format(files.csv, files.lying_csv, ("a.csv",), _of_a_table(read_csv)),
    "Parquet": Format(files.parquet, files.lying_parquet, ("a.parquet",), _of_a_table(read_parquet)),
    "IDX": Format(files.idx, files.lying_idx, ("a-idx",), (read_idx, partial(_read, target=0), _read_inputs)),
    "IDX, gzip": Format(
        files.packed_idx,
        files.lying_packed_idx,
        ("a-idx.gz",),
        (read_idx, partial(_read, target=0), _read_inputs),
    ),
    "IDX folder": Format(
        files.idx,
        files.lying_idx,
        tuple(f"set/{name}" for name in (*_idx_folder(), "more-images-idx3-ubyte", "train-images-idx3-ubyte.gz")),
        tuple(partial(_of_its_folder, way) for way in (read_idx_folder, _read, _read_inputs)),
        lambda: {f"set/{name}": content for name, content in _idx_folder().items()},
    ),
    "configuration": Format(
        models.configuration,
        models.lying_configuration,
        ("run.toml",),
        (configuration.read,),
    ),
    "model": Format(models.model, models.lying_model, ("a.safetensors",), (partial(gpu_nn.load, device="cpu"),)),
    "checkpoint": Format(
        lambda: [models.whole_checkpoint(2)], models.lying_checkpoint, (_NEWEST,), (_newest,), _before
    ),
    "training": Format(
        trainings.trainings,
        trainings.lying_training,
        ("a.safetensors",),
        (trainings.resumed,),
        lies=1.0,
    ),
}
