"""The folder of a run.

While it goes on, and after it was broken off:   checkpoints/config.toml, checkpoints/steps-….safetensors
When it is finished:                             config.toml, history.json, model.safetensors
"""

import argparse
import json
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpu_nn.cli import configuration
from gpu_nn.errors import DataError
from gpu_nn.files import to_disk, whole_file
from gpu_nn.model_file import save
from gpu_nn.network import Network
from gpu_nn.training import History
from gpu_nn.training.checkpoint import names_to_disk, newest, written_in


class RunFolder:
    """`path` and what is in it."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.model = self.path / "model.safetensors"
        self.history = self.path / "history.json"
        self.configuration = self.path / configuration.NAME
        self.checkpoints = self.path / "checkpoints"
        self.configuration_of_unfinished = self.checkpoints / configuration.NAME

    @property
    def files(self) -> list[tuple[Path, str]]:
        """Those that a run writes, each with what it is."""
        own = (self.model, self.history, self.configuration, self.configuration_of_unfinished)
        return [(file, f"{file.name} of the run") for file in own]

    @property
    def made(self) -> set[Path]:
        """The folders that are made for a run where they are not there."""
        return {self.checkpoints.resolve(), *self.checkpoints.resolve().parents}

    @property
    def is_unfinished(self) -> bool:
        return self.configuration_of_unfinished.is_file()

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
        away again. Raises DataError when the folder cannot be written, or holds an unfinished run
        or another training's checkpoints.
        """
        self._check_free()
        made: list[Path] = []
        try:
            try:
                for place in (*reversed(self.path.parents), self.path, self.checkpoints):
                    if not place.is_dir():
                        place.mkdir()
                        made.append(place)
                with tempfile.TemporaryFile(dir=self.path):
                    pass
            except OSError as error:
                raise self._not_written(error) from None
            self._remove_checkpoints()
            write_settings(self.configuration_of_unfinished)
            for place in (self.checkpoints, *(folder.parent for folder in made)):
                names_to_disk(place)
            yield
        except BaseException:
            if not written_in(self.checkpoints):
                with suppress(OSError):
                    self.configuration_of_unfinished.unlink(missing_ok=True)
                for place in (self.checkpoints, *reversed(made)):
                    with suppress(OSError):
                        place.rmdir()
            raise

    def check_can_begin(self) -> None:
        """Raises the errors that `begun` would raise, and leaves the folder as it is, or not there."""
        self._check_free()
        try:
            check_writable(self.path)
        except OSError as error:
            raise self._not_written(error) from None

    def _check_free(self) -> None:
        if written_in(self.checkpoints) and not (self.is_unfinished or self.is_finished):
            raise DataError(
                f"--out {self.path} holds checkpoints of a training that `gpu-nn train` did not begin: choose another "
                f"folder, or delete {self.checkpoints} if they are not needed"
            )
        if self.is_unfinished and written_in(self.checkpoints):
            raise DataError(
                f"--out {self.path} holds an unfinished run: {self.resume_command} goes on with it; "
                f"delete {self.checkpoints} to begin anew"
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
        path = self.configuration_of_unfinished if self.is_unfinished else self.configuration
        return configuration.read(path, add_arguments)

    def read_history(self) -> History:
        """All of it; of a run that is not finished, what its newest checkpoint has. Raises DataError without one."""
        path = self.history
        try:
            if not self.is_unfinished:
                return History.from_json(path.read_text())
            checkpoint, _ = newest(self.checkpoints)
            path = checkpoint.path
            return History.from_json(json.dumps({"epochs": checkpoint.training["history"]}))
        except DataError:
            raise
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is no history of a run: {error!r}") from None

    def finish(self, net: Network, history: History) -> None:
        """Write what the run has come to; its checkpoints have done their work and go.

        Raises DataError when there is no room: what was there before then stays as it was.
        """
        with whole_file(self.history) as file:
            file.write(history.to_json().encode())
            # There is room for it before the model is written: neither comes without the other.
            to_disk(file)
            save(net, self.model)
        self.configuration_of_unfinished.replace(self.configuration)
        names_to_disk(self.path)
        self._remove_checkpoints()
        with suppress(OSError):
            self.checkpoints.rmdir()

    def _remove_checkpoints(self) -> None:
        """And what writes that were broken off have left."""
        halves = [*self.checkpoints.glob(".steps-*"), *self.checkpoints.glob(f".{configuration.NAME}.*")]
        for file in (self.model, self.history):
            halves += self.path.glob(f".{file.name}.*")
        for path in (*written_in(self.checkpoints).values(), *halves):
            with suppress(OSError):
                path.unlink()


def check_writable(folder: Path) -> None:
    """Raises OSError when files cannot be made in the folder, or in what of the way to it is there already."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass
