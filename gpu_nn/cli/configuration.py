"""The settings of a run: what flags say, else a configuration file, else the defaults; and the file that keeps them.

A configuration file, and the config.toml that a run keeps, has the names of the flags of `gpu-nn train` as keys:
batch-size = 32. The flags' own types check its values. Relative paths in it start at its folder.
"""

import argparse
import json
import re
import reprlib
import tomllib
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, NoReturn

from gpu_nn.cli import arguments
from gpu_nn.cli.arguments import DEFAULTS, TEXT, ArgumentType, add_train_arguments, flag_text
from gpu_nn.data import is_large
from gpu_nn.data.sources import is_label_file
from gpu_nn.device import resolve_device
from gpu_nn.errors import DataError, not_one_of
from gpu_nn.files import atomic_write

NAME = "config.toml"

# Flags of one call; all others are settings of the run.
_CALL_FLAGS = ("config", "distributed", "dry-run", "json", "out", "resume")

# More epochs change the learning rates of these from the first step on.
_SCHEDULES_OF_ALL_EPOCHS = ("cosine", "step", "exponential")

# In front of the first = of a line, outside quotes.
_MAX_DOTS = 100
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'')


class _Parser(argparse.ArgumentParser):
    """The parser of settings. actions: by the names of their flags, without the dashes."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.actions: dict[str, argparse.Action] = {}
        add_train_arguments(self)

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        action = super().add_argument(*names, **options)
        self.actions[names[0].removeprefix("--")] = action
        return action

    def settings(self, flags: Sequence[str] = ()) -> argparse.Namespace:
        """The settings that the flags give, None for others."""
        settings = self.parse_args(flags)
        for flag in _CALL_FLAGS:
            delattr(settings, self.actions[flag].dest)
        return settings

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _explicit_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings from flags and from the file of --config, with absolute paths and a device instead of "auto".

    Raises DataError for a file that `read` refuses.
    """
    settings: dict[str, Any] = {}
    if options.config is not None:
        settings = {name: value for name, value in vars(read(Path(options.config))).items() if value is not None}
    names = vars(_Parser().settings())
    flags = {name: value for name, value in vars(options).items() if name in names and value is not None}
    _make_absolute(flags, Path(), settings.get("data"))
    for flag, other in (("test_fraction", "test_last"), ("test_last", "test_fraction")):
        # Both choose the test rows: the flag overrides the file.
        if flag in flags:
            settings.pop(other, None)
    settings |= flags
    if "device" in settings:
        settings["device"] = resolve_device(settings["device"]).name
    return settings


def new_run_settings(options: argparse.Namespace) -> argparse.Namespace:
    """All settings of a new run; None for those that are not given and have no default."""
    settings = _Parser().settings()
    vars(settings).update({**DEFAULTS, **_explicit_settings(options)})
    settings.device = resolve_device(settings.device).name
    if settings.stream == "auto":
        # The run keeps the decision: a resumed run reads its data the same way, whatever memory is free then.
        settings.stream = "always" if is_large(settings.data, settings.target, to_train=True) else "never"
    if settings.lr is None:
        settings.lr = arguments.SGD_LR if settings.optimizer == "sgd" else arguments.LR
    if settings.early_stopping is not None and settings.validation_fraction is None:
        settings.validation_fraction = arguments.VALIDATION_FRACTION
    if options.out is None and options.checkpoint_every is not None:
        raise ValueError("--checkpoint-every needs --out FOLDER, where the checkpoints go")
    if settings.checkpoint_every is None:
        settings.checkpoint_every = arguments.CHECKPOINT_EVERY
    return settings


def resumed_settings(
    options: argparse.Namespace, saved: argparse.Namespace, folder: Path, new_run_command: str
) -> argparse.Namespace:
    """The `saved` settings of the run in `folder`, with the device and the larger number of epochs that flags give.

    new_run_command: starts a new run with the saved settings. Raises ValueError, which names the flag, for any other
    flag that differs from the saved settings.
    """
    if options.out is not None and Path(options.out).resolve() != folder.resolve():
        raise ValueError(f"--out {options.out} contradicts --resume {folder}: a run stays in its folder")
    settings = copy(saved)
    for name, value in _explicit_settings(options).items():
        saved_value = getattr(saved, name)
        if value == saved_value:
            continue
        more_epochs = name == "epochs" and value > saved_value
        if more_epochs and saved.schedule in _SCHEDULES_OF_ALL_EPOCHS:
            raise ValueError(
                f"--epochs {value}: the {saved.schedule} schedule of the run in {folder} is made for {saved_value} "
                f"epochs; {new_run_command} --epochs {value} starts a new run"
            )
        if name != "device" and not more_epochs:
            flag = f"--{_key(name)}"
            has = "no such flag" if saved_value is None else f"{flag} {flag_text(saved_value)}"
            raise ValueError(f"{flag} {flag_text(value)} contradicts the run in {folder}, which has {has}")
        setattr(settings, name, value)
    return settings


def write(path: Path, settings: argparse.Namespace) -> None:
    """Raises DataError for a file that cannot be written."""
    values = {_key(name): _toml(value) for name, value in vars(settings).items() if value is not None}
    lines = ["# The settings of this run, by the names of the flags of `gpu-nn train`."]
    lines += [f"{key} = {value}" for key, value in values.items()]
    with atomic_write(path) as file:
        file.write("\n".join([*lines, ""]).encode())


def read(path: Path) -> argparse.Namespace:
    """Raises DataError for a file that cannot be read, is not TOML, or has an unknown key or value."""
    parser = _Parser()
    try:
        text = path.read_bytes().decode()
        _check_dots(text)
        values = tomllib.loads(text)
        settings = parser.settings([flag for key, value in values.items() for flag in _flags_of(key, value, parser)])
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no configuration of a run: {error}") from None
    _make_absolute(vars(settings), path.parent)
    return settings


def _check_dots(text: str) -> None:
    """Raises ValueError for a key of very many parts, because the TOML reader's memory grows with their square."""
    for number, line in enumerate(text.splitlines(), 1):
        key = _QUOTED.sub("", line).partition("#")[0].partition("=")[0]
        if key.count(".") > _MAX_DOTS:
            raise ValueError(f"line {number} has a key of more than {_MAX_DOTS} parts; keys are names of flags")


def _flags_of(key: str, value: Any, parser: _Parser) -> list[str]:
    """The command-line flags for an entry of the file. Raises ValueError for an unknown key or a wrong type."""
    if key in _CALL_FLAGS:
        raise ValueError(f"{key} = {reprlib.repr(value)} is no setting of a run; give the flag --{key}")
    if key not in parser.actions:
        if any(isinstance(entry, dict) for entry in (value if isinstance(value, list) else [value])):
            raise ValueError(f"{key} is a table, and there are none in it: write batch-size = 32 with no [{key}] above")
        raise ValueError(not_one_of(key, parser.actions.keys() - set(_CALL_FLAGS)))
    action = parser.actions[key]
    expected = action.type if isinstance(action.type, ArgumentType) else TEXT
    entries = value if isinstance(value, list) and list in expected.toml_types else [value]
    if any(type(entry) not in expected.toml_types or isinstance(entry, list) for entry in entries):
        raise ValueError(f"{key} = {reprlib.repr(value)}; expected {expected.description}")
    if expected.separator is not None:
        entries = [expected.separator.join(map(str, entries))]
    return [f"--{key}={entry}" for entry in entries]


def _make_absolute(settings: dict[str, Any], folder: Path, data: str | None = None) -> None:
    """Replace paths relative to the folder. data: the source of the data, where `settings` does not name it."""

    def absolute(path: str) -> str:
        return str((folder / path).absolute())

    for name in settings.keys() & {"data", "tensorboard", "log"}:
        value = settings[name]
        if value is not None:
            settings[name] = list(map(absolute, value)) if isinstance(value, list) else absolute(value)
    target = settings.get("target")
    if target is not None and is_label_file(settings.get("data") or data, absolute(target)):
        settings["target"] = absolute(target)


def _key(name: str) -> str:
    return name.replace("_", "-")


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int | float):
        return repr(value)
    # A JSON string is a TOML string, except for DEL, which TOML escapes.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")
