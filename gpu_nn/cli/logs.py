"""Where a run's logs go: places that can be written, and that nothing else has."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from gpu_nn.cli.run_folder import RunFolder, check_writable
from gpu_nn.errors import DataError


def check_logs(settings: argparse.Namespace, config: str | None, folder: RunFolder | None) -> None:
    """Before anything is made or written.

    config: the file of --config. folder: of the run, which is made for it. Raises ValueError for a log that is a file
    of the data, of the settings, of the run, or another log; DataError, with the flag's name, for a place to which none
    could be written.
    """
    taken = [*_inputs(settings, config), *(() if folder is None else folder.files)]
    for path in map(Path, settings.log or ()):
        for file, what in taken:
            if _same(path, file):
                raise ValueError(f"--log {path} is {what}, which it would overwrite; choose another file")
        taken.append((path, "another log"))
        # The run's own folders are made before its logs.
        made = folder is not None and path.parent.resolve() in folder.made
        if not (path.parent.exists() or made):
            raise _not_written("--log", path, "No such file or directory")
        if path.is_dir():
            raise DataError(f"--log {path} is a folder; choose a file's name")
        _check_writable("--log", path, path.parent)
    if settings.tensorboard is not None:
        _check_writable("--tensorboard", Path(settings.tensorboard), Path(settings.tensorboard))


def _inputs(settings: argparse.Namespace, config: str | None) -> Iterator[tuple[Path, str]]:
    for flag, name in (("--data", settings.data), ("--target", settings.target), ("--config", config)):
        if name is not None and Path(name).is_file():
            yield Path(name), f"the file of {flag}"
        elif name is not None and flag == "--data" and Path(name).is_dir():
            yield from ((file, "a file of --data") for file in Path(name).iterdir())


def _same(one: Path, other: Path) -> bool:
    """Whether both names are of one file, be it there or not, through links of all kinds."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return one.resolve() == other.resolve()


def _check_writable(flag: str, path: Path, folder: Path) -> None:
    try:
        check_writable(folder)
    except OSError as error:
        raise _not_written(flag, path, error.strerror) from None


def _not_written(flag: str, path: Path, why: str | None) -> DataError:
    return DataError(f"{flag} {path} cannot be written: {why}; choose another folder")
