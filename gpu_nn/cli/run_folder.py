"""The folder of a run, its states, and the lock that keeps other processes out of it.

UNFINISHED: checkpoints/config.toml, checkpoints/steps-….safetensors
FINISHED:   config.toml, history.json, model.safetensors, and in checkpoints/ the final checkpoint, from which more
            epochs resume
"""

import argparse
import json
import os
import shlex
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from gpu_nn.cli import configuration
from gpu_nn.cli.run_files import CheckpointFolder, TestResult, read_history, remove, remove_if_empty, writing
from gpu_nn.errors import DataError
from gpu_nn.files import atomic_write, fsync, fsync_folder
from gpu_nn.model_file import save
from gpu_nn.network import Network
from gpu_nn.training import History
from gpu_nn.training.checkpoint import Checkpoint, read_newest

# The name is specific, so that the lock is no file of another program.
LOCK_FILE = ".gpu-nn.lock"


class RunState(Enum):
    """What a folder holds."""

    NO_RUN = "no run"
    UNFINISHED = "unfinished"
    FINISHED = "finished"


class RunFolder:
    """The folder `path` and the files of a run in it."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.model = self.path / "model.safetensors"
        self.history = self.path / "history.json"
        self.configuration = self.path / configuration.NAME
        self.checkpoints = CheckpointFolder(self.path / "checkpoints")

    @property
    def state(self) -> RunState:
        if self.checkpoints.configuration.is_file():
            return RunState.UNFINISHED
        if self.configuration.is_file() and self.model.is_file():
            return RunState.FINISHED
        return RunState.NO_RUN

    @property
    def files(self) -> list[tuple[Path, str]]:
        """The files that a run writes, each with a description."""
        files = (self.model, self.history, self.configuration, self.checkpoints.configuration)
        return [(file, f"{file.name} of the run") for file in files]

    @property
    def created_folders(self) -> set[Path]:
        """The folders that a run creates where they do not exist."""
        checkpoints = self.checkpoints.path.resolve()
        return {checkpoints, *checkpoints.parents}

    @property
    def resume_command(self) -> str:
        return f"gpu-nn train --resume {shlex.quote(str(self.path))}"

    @property
    def new_run_command(self) -> str:
        """The command of a new run with the settings of this one."""
        return f"gpu-nn train --config {shlex.quote(str(self._current_configuration))} --out FOLDER"

    @property
    def _current_configuration(self) -> Path:
        return self.checkpoints.configuration if self.state is RunState.UNFINISHED else self.configuration

    @contextmanager
    def start(self, settings: argparse.Namespace) -> Iterator[None]:
        """A new run in the folder, which is created if it does not exist and tested for writing before any work.

        If the block fails before the first checkpoint, what was created is removed and an earlier run in the folder is
        restored. Raises DataError for a folder that cannot be written, holds an unfinished run or the checkpoints of
        another training, or in which another process trains.
        """
        created: list[Path] = []
        try:
            self._create((*reversed(self.path.parents), self.path), created)
            with locked(self.path):
                self._check_available()
                self._create((self.checkpoints.path,), created)
                self._remove_partial_files()
                with self.checkpoints.start(settings):
                    for folder in created:
                        fsync_folder(folder.parent)
                    yield
        except BaseException:
            for folder in reversed(created):
                remove_if_empty(folder)
            raise

    def _create(self, folders: Iterable[Path], created: list[Path]) -> None:
        """Create the folders that do not exist, append them to `created`, and test the last one for writing."""
        with writing(f"--out {self.path}"):
            for folder in folders:
                if not folder.is_dir():
                    folder.mkdir()
                    created.append(folder)
        check_writable(folder, f"--out {self.path}")

    def check_can_start(self) -> None:
        """Raises the errors of `start` without writing anything."""
        self._check_available()
        check_writable(self.path, f"--out {self.path}")

    def _check_available(self) -> None:
        state, checkpoints = self.state, self.checkpoints.path
        if self.checkpoints and state is RunState.NO_RUN:
            raise DataError(
                f"--out {self.path} holds checkpoints of a training that `gpu-nn train` did not start: choose another "
                f"folder, or delete {checkpoints} if they are not needed"
            )
        if self.checkpoints and state is RunState.UNFINISHED:
            raise DataError(
                f"--out {self.path} holds an unfinished run: {self.resume_command} continues it; "
                f"delete {checkpoints} to start a new run"
            )
        for file in (self.model, self.history, self.configuration):
            if file.is_dir():
                raise DataError(f"--out {self.path} cannot be written: it holds a folder named {file.name}")

    def resume_point(self, *, more_epochs: bool) -> tuple[Checkpoint | None, list[str]]:
        """The checkpoint from which the run resumes, None for its beginning, and messages about that, a line each.

        more_epochs: than the settings of the run have. Raises DataError for a run that cannot resume.
        """
        if self.checkpoints:
            checkpoint, damages = read_newest(self.checkpoints.path)
            position = checkpoint.training.get("position")
            if more_epochs and isinstance(position, dict) and position.get("stopping"):
                raise DataError(
                    f"the run in {self.path} was ended by early stopping, not by --epochs; {self.new_run_command} "
                    f"--early-stopping N, with a larger N, trains longer"
                )
            return checkpoint, [f"{damage}; the one before is used: {checkpoint.path.name}" for damage in damages]
        if self.state is RunState.FINISHED and len(self.read_history()):
            raise DataError(
                f"{self.checkpoints.path} does not hold the final checkpoint of the run, which more epochs need; "
                f"{self.new_run_command} --epochs N starts a new run"
            )
        return None, ["the run has no checkpoint yet: it starts from the beginning"]

    def read_settings(self, argument: str = "--resume") -> argparse.Namespace:
        """The settings of the run. argument: names the folder in errors. Raises DataError for one without a run."""
        if not self.path.is_dir():
            raise DataError(f"{argument} {self.path} does not exist; expected the folder of `gpu-nn train --out`")
        if self.state is RunState.NO_RUN:
            raise DataError(f"{argument} {self.path} holds no run of `gpu-nn train --out`")
        return configuration.read(self._current_configuration)

    def read_history(self) -> History:
        """The history of the run, of an unfinished one up to its newest checkpoint. Raises DataError without one."""
        return self.checkpoints.read_history() if self.state is RunState.UNFINISHED else read_history(self.history)

    def finish(self, net: Network, history: History, test: TestResult, data: dict[str, Any]) -> None:
        """Write the model and the history, and keep only the final checkpoint. data: as history.json keeps it.

        Raises DataError when the disk is full, which leaves the files of an earlier run as they were.
        """
        content = {"test": asdict(test), "data": data, **json.loads(history.to_json())}
        with atomic_write(self.history) as file:
            file.write(json.dumps(content, indent=1).encode())
            # Reserve the space of the history before the model is written: a full disk then leaves neither.
            fsync(file)
            save(net, self.model)
        self.checkpoints.finish(history[-1].steps if len(history) else 0, self.configuration)
        self._remove_partial_files()

    def _remove_partial_files(self) -> None:
        """Remove the temporary files of interrupted writes of the model and the history."""
        for file in (self.model, self.history):
            for partial in self.path.glob(f".{file.name}.*"):
                remove(partial)


def check_writable(folder: Path, name: str) -> None:
    """Raises DataError for a folder, or its nearest parent that exists, in which no file can be created. name: of the
    path in the error.
    """
    with writing(name):
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises DataError while another process holds it.

    The system releases the lock of a process that ends in any way, so a lock file that is left behind locks nothing.
    Without support for locks, or in a folder that cannot be written, the lock is not taken and there is no error.
    """
    path = folder / LOCK_FILE
    descriptor = _acquire(path)
    try:
        yield
    finally:
        if descriptor is not None:
            # Unlink while the lock is held: a process that has opened the file notices that it is gone.
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _acquire(path: Path) -> int | None:
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ImportError:
        return None
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            raise DataError(f"another process trains in {path.parent}; wait for it, or end it first") from None
        except OSError:
            os.close(descriptor)
            return None
        os.close(descriptor)
