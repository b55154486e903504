"""The checkpoints of a run, beside them the settings of one that is unfinished, and how it begins, goes on and ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpu_nn.cli import configuration
from gpu_nn.errors import DataError
from gpu_nn.files import atomic_write
from gpu_nn.training.checkpoint import fsync_folder, name, written_in

# Before the name of an older run's last state, which waits for the new run to be whole.
_ASIDE = ".older."


class RunCheckpoints:
    """`path`, a folder, and what is in it."""

    def __init__(self, path: Path):
        self.path = path
        self.configuration = path / configuration.NAME
        self.last_state = path / ".last.safetensors"
        self._finished = False

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(written_in(self.path))

    @contextmanager
    def begun(self, write_settings: Callable[[Path], None]) -> Iterator[None]:
        """A new run has these settings. When the work fails before there is a checkpoint, nothing of it is left, and
        the last state of an older run is back.
        """
        try:
            self._set_aside()
            self._remove()
            write_settings(self.configuration)
            fsync_folder(self.path)
            yield
        except BaseException:
            remove(self.last_state)
            if not (self or self._finished):
                remove(self.configuration)
                for older in self._aside():
                    older.replace(older.with_name(older.name.removeprefix(_ASIDE)))
                remove_if_empty(self.path)
            raise

    @contextmanager
    def gone_on(self, write_settings: Callable[[Path], None]) -> Iterator[None]:
        """The run goes on with these settings, which become its own. When the work fails before there is a new
        checkpoint, it is again what it was, finished or not, which takes no room on the disk.
        """
        there, before = written_in(self.path), self.path / f".{configuration.NAME}.before"
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}") from None
        remove(before)
        was_unfinished = self.configuration.is_file()
        try:
            if was_unfinished:
                with atomic_write(before) as file:
                    file.write(self.configuration.read_bytes())
            write_settings(self.configuration)
            yield
        except BaseException:
            remove(self.last_state)
            if written_in(self.path) == there and not self._finished:
                if not was_unfinished:
                    remove(self.configuration)
                elif before.is_file():
                    before.replace(self.configuration)
                remove_if_empty(self.path)
            raise
        finally:
            remove(before)

    def finish(self, steps: int, configuration: Path) -> None:
        """The run is finished, after so many optimizer steps: its settings go there, and of its checkpoints, which have
        done their work, the last state stays.
        """
        if self.last_state.exists():
            self.last_state.replace(self.path / name(steps))
        self.configuration.replace(configuration)
        self._finished = True
        fsync_folder(configuration.parent)
        for older in self._aside():
            remove(older)
        self._remove(keep=1)
        fsync_folder(self.path)
        remove_if_empty(self.path)

    def _set_aside(self) -> None:
        """Let the last state of an older run, if there is one, wait for the new run to be whole. One that is there
        already, of a run that was killed before it had a checkpoint, waits on.
        """
        newest = next(iter(written_in(self.path).values()), None)
        if newest is not None:
            for older in self._aside():
                remove(older)
            newest.replace(newest.with_name(_ASIDE + newest.name))

    def _aside(self) -> list[Path]:
        return list(self.path.glob(f"{_ASIDE}steps-*"))

    def _remove(self, keep: int = 0) -> None:
        """But for the newest `keep`; and what writes that were broken off have left."""
        halves = [*self.path.glob(".steps-*"), *self.path.glob(f".{configuration.NAME}.*")]
        halves += [self.last_state, *self.path.glob(f".{self.last_state.name}.*")]
        for path in (*list(written_in(self.path).values())[keep:], *halves):
            remove(path)


def remove(file: Path) -> None:
    """Take the file away, if it is there and can be."""
    with suppress(OSError):
        file.unlink()


def remove_if_empty(folder: Path) -> None:
    """Take the folder away, if nothing is in it."""
    with suppress(OSError):
        folder.rmdir()
