"""The fuzzed formats: valid and malformed files of each, and every function that reads such a file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random

import numpy as np

import gpu_nn
from gpu_nn.cli import configuration
from gpu_nn.data import read, read_inputs
from gpu_nn.data.csv import read_csv
from gpu_nn.data.idx import read_idx, read_idx_folder
from gpu_nn.data.npy import NpyReader, read_npy
from gpu_nn.data.npz import read_npz
from gpu_nn.data.parquet import read_parquet
from gpu_nn.data.table import Target
from gpu_nn.errors import DataError
from gpu_nn.training import checkpoint
from gpu_nn.training.checkpoint import DamagedCheckpoint, read_newest
from tests.fuzz import files, models, trainings
from tests.fuzz.mutations import mutated

_Valid = Callable[[], Sequence[bytes]]


class WrongResult(AssertionError):
    """A reader returned what it must not return."""


@dataclass(frozen=True)
class Format:
    """valid, malformed: the files that inputs are made of. names: file names, one of which is chosen at random. reads:
    each is called with the path; the first decides whether the input counts as read. beside: other files of its folder,
    by name. malformed_share: the share of inputs that are made of malformed files."""

    valid: _Valid
    malformed: Callable[[Random], bytes]
    names: tuple[str, ...]
    reads: tuple[Callable[[Path], object], ...]
    beside: Callable[[], dict[str, bytes]] = dict
    malformed_share: float = 0.3

    def input(self, key: str, payload: bytes) -> tuple[str, bytes]:
        """Name and content of the input with this key. payload: a pickle that leaves a sign when it is unpickled."""
        random = Random(key)
        valid = _made(self.valid)
        name = random.choice(self.names)
        if random.random() < self.malformed_share:
            content = self.malformed(random)
            return name, content if random.random() < 0.7 else mutated(content, (*valid, payload), random)
        return name, mutated(random.choice(valid), (*valid, payload), random)


@cache
def _made(valid: _Valid) -> tuple[bytes, ...]:
    return tuple(valid())


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


_NEWEST = checkpoint.file_name(2)


def _before() -> dict[str, bytes]:
    return {checkpoint.file_name(1): models.whole_checkpoint(1)}


def _newest(path: Path) -> object:
    """The newest whole checkpoint, which is the one at `path` or, once that is damaged, the one before."""
    try:
        found, damages = read_newest(path.parent)
    except DataError as error:
        if "upgrade" not in str(error):
            raise WrongResult(f"did not fall back: {error}") from error
        raise
    if found.path == path:
        return found
    if found.training["position"] != {"steps": 1} or len(damages) != 1:
        raise WrongResult(f"{found.path.name} with {found.training['position']} and {damages}")
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
    "npz": Format(files.npz, files.malformed_npz, ("a.npz",), (read_npz, _read, _read_inputs)),
    "npy": Format(
        files.npy,
        files.malformed_npy,
        ("a.npy",),
        (read_npy, _rows, partial(_read, target=-1), _read_inputs),
    ),
    "CSV": Format(files.csv, files.malformed_csv, ("a.csv",), _of_a_table(read_csv)),
    "Parquet": Format(files.parquet, files.malformed_parquet, ("a.parquet",), _of_a_table(read_parquet)),
    "IDX": Format(files.idx, files.malformed_idx, ("a-idx",), (read_idx, partial(_read, target=0), _read_inputs)),
    "IDX, gzip": Format(
        files.packed_idx,
        files.malformed_packed_idx,
        ("a-idx.gz",),
        (read_idx, partial(_read, target=0), _read_inputs),
    ),
    "IDX folder": Format(
        files.idx,
        files.malformed_idx,
        tuple(f"set/{name}" for name in (*_idx_folder(), "more-images-idx3-ubyte", "train-images-idx3-ubyte.gz")),
        tuple(partial(_of_its_folder, way) for way in (read_idx_folder, _read, _read_inputs)),
        lambda: {f"set/{name}": content for name, content in _idx_folder().items()},
    ),
    "configuration": Format(
        models.configuration,
        models.malformed_configuration,
        ("run.toml",),
        (configuration.read,),
    ),
    "model": Format(models.model, models.malformed_model, ("a.safetensors",), (partial(gpu_nn.load, device="cpu"),)),
    "checkpoint": Format(
        lambda: [models.whole_checkpoint(2)], models.malformed_checkpoint, (_NEWEST,), (_newest,), _before
    ),
    "training": Format(
        trainings.trainings,
        trainings.malformed_training,
        ("a.safetensors",),
        (trainings.resumed,),
        malformed_share=1.0,
    ),
}
