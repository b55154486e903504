"""The checkpoints of a run, with the settings of an unfinished one: how a run starts, resumes and finishes there."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpu_nn.cli import configuration
from gpu_nn.errors import DataError
from gpu_nn.files import atomic_write, fsync_folder
from gpu_nn.training.checkpoint import file_name, list_checkpoints

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
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}") from None
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

    def _back_up_newest(self) -> None:
        """Rename the newest checkpoint. Without one, keep the backup that a killed run may have left."""
        newest = next(iter(list_checkpoints(self.path).values()), None)
        if newest is not None:
            for backup in self._backups():
                remove(backup)
            newest.replace(newest.with_name(_BACKUP + newest.name))

    def _backups(self) -> list[Path]:
        return list(self.path.glob(f"{_BACKUP}steps-*"))

    def _remove_checkpoints(self, keep: int = 0) -> None:
        """All but the newest `keep`, and the temporary files of interrupted writes."""
        partial = [*self.path.glob(".steps-*"), *self.path.glob(f".{configuration.NAME}.*")]
        partial += [self.final, *self.path.glob(f".{self.final.name}.*")]
        for path in (*list(list_checkpoints(self.path).values())[keep:], *partial):
            remove(path)


def remove(file: Path) -> None:
    """Remove the file, if it exists and can be removed."""
    with suppress(OSError):
        file.unlink()


def remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
