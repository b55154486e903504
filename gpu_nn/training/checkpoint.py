"""Checkpoints: the whole state of a training in one safetensors file. Reading one executes nothing.

Header (safetensors metadata, strings):
    "format": "gpu_nn.checkpoint"      "version": "1"
    "checksum": SHA-256, in hex, of "training" and of every array's name, type, shape and bytes, in the order of names
    "training": JSON (with NaN and Infinity as Python writes them) of
        "settings"   of "network", "optimizer", "schedule" and "trainer"; equal where it resumes
        "data"       rows, columns and a checksum of each data set; equal where it resumes
        "lanes"      the number of shards in which the rows of a stream are shuffled, or null; equal where it resumes
        "position"   "first_epoch": epochs done before the fit; "steps": of the optimizer; "steps_in_epoch"; "cost":
                     sum over this epoch's rows whose losses were read; "seconds": of this epoch; "stopping": whether
                     the training ends after it
        "random"     state of the generator before it drew this epoch's order
        "schedule"   state of the schedule
        "history"    the records of the epochs done, as in history.json
        "callbacks"  [name, state without its arrays] of each callback that has a state
Arrays: "network.NAME": parameters (flat) and state; "optimizer.NAME": its state; "losses": the pending ones of this
epoch's latest steps; "callback.I.NAME": arrays in the state of callback I.
"""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_nn.errors import DataError, MissingFile
from gpu_nn.files import atomic_write, fsync_folder, reading, write_safetensors

FORMAT = "gpu_nn.checkpoint"
VERSION = 1

_NUMBER = re.compile("[1-9][0-9]*")
_NAME = re.compile(r"steps-(\d{12})\.safetensors")


class DamagedCheckpoint(DataError):
    """The file is no checkpoint, or something in it is missing or changed. An older checkpoint may be whole."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint. training: the JSON of its header. arrays: on the host."""

    path: Path
    training: dict[str, Any]
    arrays: dict[str, np.ndarray]


def file_name(steps: int) -> str:
    """The file name of the checkpoint after that many optimizer steps."""
    return f"steps-{steps:012d}.safetensors"


def list_checkpoints(folder: str | os.PathLike[str]) -> dict[int, Path]:
    """The checkpoint files of a folder by their steps, the newest first; none where the folder does not exist."""
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    found = {int(match[1]): Path(folder) / match[0] for match in map(_NAME.fullmatch, names) if match}
    return dict(sorted(found.items(), reverse=True))


def read_newest(folder: str | os.PathLike[str]) -> tuple[Checkpoint, list[str]]:
    """The newest whole checkpoint of the folder, and a line for each newer one that says what is wrong with it.

    Raises DataError when there is none, or when the newest is of a newer version of gpu_nn.
    """
    listed = list_checkpoints(folder)
    damages: list[str] = []
    for path in listed.values():
        try:
            return read(path), damages
        except MissingFile as error:
            # A training that runs meanwhile removes it when a newer one is whole.
            if list_checkpoints(folder) != listed:
                return read_newest(folder)
            damages.append(str(error))
        except DamagedCheckpoint as error:
            damages.append(str(error))
    if damages:
        raise DataError(f"{folder} holds no whole checkpoint: {'; '.join(damages)}")
    raise DataError(f"{folder} holds no checkpoint")


def load_checkpoint(source: str | os.PathLike[str] | Checkpoint | None, stacklevel: int = 3) -> Checkpoint | None:
    """A checkpoint, read from its file or from a folder of them.

    Where the newest file of a folder is damaged, this warns and reads the one before. stacklevel: as for
    `warnings.warn`; by default the caller of the caller. Raises DataError when there is none to read.
    """
    if source is None or isinstance(source, Checkpoint):
        return source
    if not Path(source).is_dir():
        return read(source)
    checkpoint, damages = read_newest(source)
    for damage in damages:
        warnings.warn(f"{damage}; the one before is used: {checkpoint.path.name}", stacklevel=stacklevel)
    return checkpoint


def write(path: str | os.PathLike[str], training: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write the checkpoint, whole or not at all; on return it is on the disk under its name.

    Raises DataError when it cannot be written; what was there before then stays as it was.
    """
    text = json.dumps(training)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    metadata = {"format": FORMAT, "version": str(VERSION), "checksum": _checksum(text, contiguous), "training": text}
    with atomic_write(path) as file:
        write_safetensors(file, contiguous, metadata)
    fsync_folder(Path(path).parent)


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint in the file, after all of it was checked.

    Raises DamagedCheckpoint for a file that is cut short, changed, or of another kind, DataError for one that is
    missing or of a newer version.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    invalid = {
        "is damaged": (SafetensorError,),
        "is damaged: its header or an array makes no sense": (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            RecursionError,
        ),
    }
    with reading(path, invalid, DamagedCheckpoint), safe_open(str(path), framework="numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise DamagedCheckpoint(f"{path} is a safetensors file, but no checkpoint of gpu_nn")
        version = metadata.get("version", "")
        if _NUMBER.fullmatch(version) and version != str(VERSION):
            raise DataError(f"{path} has format version {version!r}; this gpu_nn reads version {VERSION}: upgrade")
        if version != str(VERSION):
            raise DamagedCheckpoint(f"{path} is damaged: its format version is {version!r}")
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata["training"]
        if metadata["checksum"] != _checksum(text, arrays):
            raise DamagedCheckpoint(f"{path} is damaged: its content does not have its checksum")
        training = json.loads(text)
    if not isinstance(training, dict):
        raise DamagedCheckpoint(f"{path} is damaged: its header describes no training")
    return Checkpoint(path, training, arrays)


def _checksum(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
