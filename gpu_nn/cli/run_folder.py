"""The folder of a run.

While it goes on, and after it was broken off:   checkpoints/config.toml, checkpoints/steps-….safetensors
When it is finished:                             config.toml, history.json, model.safetensors, and in checkpoints/ the
                                                 state after its last epoch, from which it can go on
"""

import argparse
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpu_nn.cli import configuration
from gpu_nn.cli.lock import locked
from gpu_nn.cli.report import Tested
from gpu_nn.cli.run_checkpoints import RunCheckpoints, remove, remove_if_empty
from gpu_nn.cli.run_history import history_of, read_history, text_of
from gpu_nn.errors import DataError
from gpu_nn.files import atomic_write, fsync
from gpu_nn.model_file import save
from gpu_nn.network import Network
from gpu_nn.training import History
from gpu_nn.training.checkpoint import Checkpoint, fsync_folder, newest


class RunFolder:
    """`path` and what is in it."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.model = self.path / "model.safetensors"
        self.history = self.path / "history.json"
        self.configuration = self.path / configuration.NAME
        self.checkpoints = RunCheckpoints(self.path / "checkpoints")

    @property
    def files(self) -> list[tuple[Path, str]]:
        """Those that a run writes, each with what it is."""
        own = (self.model, self.history, self.configuration, self.checkpoints.configuration)
        return [(file, f"{file.name} of the run") for file in own]

    @property
    def made(self) -> set[Path]:
        """The folders that are made for a run where they are not there."""
        checkpoints = self.checkpoints.path.resolve()
        return {checkpoints, *checkpoints.parents}

    @property
    def is_unfinished(self) -> bool:
        return self.checkpoints.configuration.is_file()

    @property
    def is_finished(self) -> bool:
        return not self.is_unfinished and self.configuration.is_file() and self.model.is_file()

    @property
    def resume_command(self) -> str:
        return f"gpu-nn train --resume {shlex.quote(str(self.path))}"

    @contextmanager
    def begun(self, write_settings: Callable[[Path], None]) -> Iterator[None]:
        """A new run in the folder, which is made if need be and proved to be writable before any work is done.

        write_settings: writes them to a file. When the work fails before there is a checkpoint, what was made is taken
        away again, and an older run there is what it was. Raises DataError when the folder cannot be written, holds an
        unfinished run or another training's checkpoints, or when another process trains there.
        """
        made: list[Path] = []
        try:
            self._make(made, (*reversed(self.path.parents), self.path))
            with locked(self.path):
                self._check_free()
                self._make(made, (self.checkpoints.path,))
                self._remove_halves()
                with self.checkpoints.begun(write_settings):
                    for folder in made:
                        fsync_folder(folder.parent)
                    yield
        except BaseException:
            for place in reversed(made):
                remove_if_empty(place)
            raise

    def _make(self, made: list[Path], places: Iterable[Path]) -> None:
        try:
            for place in places:
                if not place.is_dir():
                    place.mkdir()
                    made.append(place)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise self._not_written(error) from None

    def state(self, *, goes_further: bool) -> tuple[Checkpoint | None, list[str]]:
        """What the run goes on from, None for its beginning; and what there is to say of that, a line each.

        goes_further: to more epochs than it was to have. Raises DataError when it cannot.
        """
        if self.checkpoints:
            checkpoint, damages = newest(self.checkpoints.path)
            position = checkpoint.training.get("position")
            if goes_further and isinstance(position, dict) and position.get("stopping"):
                raise DataError(
                    f"the run in {self.path} was ended by early stopping, not by --epochs; {self.anew} "
                    f"--early-stopping N, with a larger N, trains longer"
                )
            return checkpoint, [f"{damage}; the one before is used: {checkpoint.path.name}" for damage in damages]
        if self.is_finished and len(self.read_history()):
            raise DataError(
                f"{self.checkpoints.path} does not hold the last state of the run, from which it could go on; "
                f"{self.anew} --epochs N trains anew"
            )
        return None, ["no checkpoint was written yet: the run begins again"]

    @property
    def anew(self) -> str:
        """The command of a new run with its settings."""
        config = self.checkpoints.configuration if self.is_unfinished else self.configuration
        return f"gpu-nn train --config {shlex.quote(str(config))} --out FOLDER"

    def check_can_begin(self) -> None:
        """Raises the errors that `begun` would raise, and leaves the folder as it is, or not there."""
        self._check_free()
        try:
            check_writable(self.path)
        except OSError as error:
            raise self._not_written(error) from None

    def _check_free(self) -> None:
        if self.checkpoints and not (self.is_unfinished or self.is_finished):
            raise DataError(
                f"--out {self.path} holds checkpoints of a training that `gpu-nn train` did not begin: choose another "
                f"folder, or delete {self.checkpoints.path} if they are not needed"
            )
        if self.is_unfinished and self.checkpoints:
            raise DataError(
                f"--out {self.path} holds an unfinished run: {self.resume_command} goes on with it; "
                f"delete {self.checkpoints.path} to begin anew"
            )
        for file in (self.model, self.history, self.configuration):
            if file.is_dir():
                raise DataError(f"--out {self.path} cannot be written: it holds a folder named {file.name}")

    def _not_written(self, error: OSError) -> DataError:
        return DataError(f"--out {self.path} cannot be written: {error.strerror}; choose another folder")

    def settings(self, add_arguments: configuration.AddArguments, named: str = "--resume") -> argparse.Namespace:
        """Those of the run that is there, finished or not. named: what the errors call the folder.

        Raises DataError when there is none.
        """
        if not self.path.is_dir():
            raise DataError(f"{named} {self.path} does not exist; expected the folder of `gpu-nn train --out`")
        if not (self.is_unfinished or self.is_finished):
            raise DataError(f"{named} {self.path} holds no run of `gpu-nn train --out`")
        path = self.checkpoints.configuration if self.is_unfinished else self.configuration
        return configuration.read(path, add_arguments)

    def read_history(self) -> History:
        """All of it; of a run that is not finished, what its newest checkpoint has. Raises DataError without one."""
        if not self.is_unfinished:
            return read_history(self.history)
        checkpoint, _ = newest(self.checkpoints.path)
        return history_of(checkpoint.path, checkpoint.training)

    def finish(self, net: Network, history: History, tested: Tested, data: dict[str, Any]) -> None:
        """Write what the run has come to. Of its checkpoints, which have done their work, the last state stays.

        data: what `run_history` says of them. Raises DataError when there is no room: what was there before then stays
        as it was.
        """
        with atomic_write(self.history) as file:
            file.write(text_of(history, tested, data).encode())
            # There is room for it before the model is written: neither comes without the other.
            fsync(file)
            save(net, self.model)
        self.checkpoints.finish(history[-1].steps if len(history) else 0, self.configuration)
        self._remove_halves()

    def _remove_halves(self) -> None:
        """Of the model and the history, that writes which were broken off have left."""
        for file in (self.model, self.history):
            for half in self.path.glob(f".{file.name}.*"):
                remove(half)


def check_writable(folder: Path) -> None:
    """Raises OSError when files cannot be made in the folder, or in what of the way to it is there already."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass
