"""The files of a run: its checkpoints, with the settings while it is unfinished, and history.json of a finished run.

history.json: "epochs": the records. "test": "loss", "accuracy" and "rows" of the test split. "data": fingerprints of
the splits, as in a checkpoint, and of the test split; early versions of gpu_nn wrote none.
"""

import argparse
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpu_nn.cli import configuration
from gpu_nn.errors import DataError
from gpu_nn.files import atomic_write, fsync_folder
from gpu_nn.training import History
from gpu_nn.training.checkpoint import Checkpoint, file_name, list_checkpoints, read_newest
from gpu_nn.validation import check_json_int

# Prefix of an earlier run's final checkpoint, kept until the new run has finished.
_BACKUP = ".older."


class CheckpointFolder:
    """The folder `path`. final: where a training writes its final checkpoint, which `finish` names by its steps."""

    def __init__(self, path: Path):
        self.path = path
        self.configuration = path / configuration.NAME
        self.final = path / ".last.safetensors"
        self._finished = False

    def __bool__(self) -> bool:
        """Whether there are checkpoints."""
        return bool(list_checkpoints(self.path))

    @contextmanager
    def start(self, settings: argparse.Namespace) -> Iterator[None]:
        """A new run with these settings. If the block fails before the first checkpoint, remove the files of the new
        run and restore the final checkpoint of an earlier one.
        """
        try:
            self._back_up_newest()
            self._remove_checkpoints()
            configuration.write(self.configuration, settings)
            fsync_folder(self.path)
            yield
        except BaseException:
            remove(self.final)
            if not (self or self._finished):
                remove(self.configuration)
                for backup in self._backups():
                    backup.replace(backup.with_name(backup.name.removeprefix(_BACKUP)))
                remove_if_empty(self.path)
            raise

    @contextmanager
    def resume(self, settings: argparse.Namespace) -> Iterator[None]:
        """The run resumes with these settings. If the block fails before a new checkpoint, restore the old settings and
        the state of the run. No copy of a checkpoint is made.
        """
        checkpoints, backup = list_checkpoints(self.path), self.path / f".{configuration.NAME}.before"
        with writing(self.path, hint=""):
            self.path.mkdir(exist_ok=True)
        remove(backup)
        was_unfinished = self.configuration.is_file()
        try:
            if was_unfinished:
                with atomic_write(backup) as file:
                    file.write(self.configuration.read_bytes())
            configuration.write(self.configuration, settings)
            yield
        except BaseException:
            remove(self.final)
            if list_checkpoints(self.path) == checkpoints and not self._finished:
                if not was_unfinished:
                    remove(self.configuration)
                elif backup.is_file():
                    backup.replace(self.configuration)
                remove_if_empty(self.path)
            raise
        finally:
            remove(backup)

    def finish(self, steps: int, configuration: Path) -> None:
        """Finish the run: move its settings to the path `configuration`, name its final checkpoint by the optimizer
        `steps`, and remove the other checkpoints.
        """
        if self.final.exists():
            self.final.replace(self.path / file_name(steps))
        self.configuration.replace(configuration)
        self._finished = True
        fsync_folder(configuration.parent)
        for backup in self._backups():
            remove(backup)
        self._remove_checkpoints(keep=1)
        fsync_folder(self.path)
        remove_if_empty(self.path)

    def read_history(self) -> History:
        """The records up to the newest checkpoint. Raises DataError without one, and for malformed ones."""
        checkpoint, _ = read_newest(self.path)
        with _parsing(checkpoint.path):
            return History.from_json(json.dumps({"epochs": checkpoint.training["history"]}))

    def _back_up_newest(self) -> None:
        """Rename the newest checkpoint. Without one, keep the backup that a killed run may have left."""
        checkpoint = next(iter(list_checkpoints(self.path).values()), None)
        if checkpoint is not None:
            for backup in self._backups():
                remove(backup)
            checkpoint.replace(checkpoint.with_name(_BACKUP + checkpoint.name))

    def _backups(self) -> list[Path]:
        return list(self.path.glob(f"{_BACKUP}steps-*"))

    def _remove_checkpoints(self, keep: int = 0) -> None:
        """All but the newest `keep`, and the temporary files of interrupted writes."""
        partial = [*self.path.glob(".steps-*"), *self.path.glob(f".{configuration.NAME}.*")]
        partial += [self.final, *self.path.glob(f".{self.final.name}.*")]
        for path in (*list(list_checkpoints(self.path).values())[keep:], *partial):
            remove(path)


@contextmanager
def writing(name: object, hint: str = "; choose another folder") -> Iterator[None]:
    """A context that raises DataError, "{name} cannot be written: …{hint}", for an OSError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{name} cannot be written: {error.strerror}{hint}") from None


def remove(file: Path) -> None:
    """Remove the file, if it exists and can be removed."""
    with suppress(OSError):
        file.unlink()


def remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


@dataclass(frozen=True)
class TestResult:
    """Mean cost and accuracy on the test split, and its rows."""

    loss: float
    accuracy: float
    rows: int


def read_history(path: Path) -> History:
    """The records. Raises DataError for a file that is missing or malformed."""
    with _parsing(path):
        return History.from_json(path.read_text())


def steps_of(checkpoint: Checkpoint) -> int:
    """The optimizer steps before the checkpoint. Raises DataError where it has none."""
    with _parsing(checkpoint.path, "has a header that makes no training"):
        return check_json_int("steps", checkpoint.training["position"]["steps"])


def read_test_result(path: Path) -> TestResult | None:
    """The result on the test split; None where an early version of gpu_nn wrote none. Raises as `read_history`."""
    with _parsing(path):
        entry = json.loads(path.read_text()).get("test")
        if entry is None:
            return None
        test = TestResult(float(entry["loss"]), float(entry["accuracy"]), int(entry["rows"]))
        if not all(map(math.isfinite, asdict(test).values())):
            raise ValueError(f"a test of {entry}")
        return test


def read_test_fingerprint(path: Path) -> dict[str, Any] | None:
    """The fingerprint of the test split, None where there is none. Raises as `read_history`."""
    with _parsing(path):
        return (json.loads(path.read_text()).get("data") or {}).get("test")


@contextmanager
def _parsing(path: Path, problem: str = "is no history of a run") -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise DataError(f"{path} {problem}: {error!r}") from None
