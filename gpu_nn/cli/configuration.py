"""The settings of a run: what flags say, else a configuration file, else the defaults; and the file that keeps them.

A configuration file, and the config.toml that is kept beside a run, holds keys by the names of the flags of `gpu-nn
train`: batch-size = 32. It is read through the flags' own checks. Relative paths in it begin at its folder.
"""

import argparse
import json
import re
import reprlib
import tomllib
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, NoReturn

from gpu_nn.cli.arguments import TEXT, Kind
from gpu_nn.cli.schedule import FIXED_BY_EPOCHS
from gpu_nn.data import is_large
from gpu_nn.data.sources import is_label_file
from gpu_nn.device import resolve_device
from gpu_nn.errors import DataError, not_one_of
from gpu_nn.files import atomic_write
from gpu_nn.training import Trigger

NAME = "config.toml"

DEFAULTS: dict[str, Any] = {
    "stream": "auto",
    "hidden": [256],
    "activation": "relu",
    "dropout": 0.0,
    "input_noise": 0.0,
    "epochs": 50,
    "batch_size": 32,
    "optimizer": "adam",
    "schedule": "constant",
    "label_smoothing": 0.0,
    "complement_weight": 1.0,
    "seed": 0,
    "device": "auto",
    "dtype": "float32",
}
SGD_LR, LR = 0.1, 0.001
VALIDATION_FRACTION = 0.1
CHECKPOINT_EVERY = Trigger(seconds=60)

# Flags that say how this call goes; all others say what the run is.
_OF_THE_CALL = ("config", "distributed", "dry-run", "json", "out", "resume")

AddArguments = Callable[[argparse.ArgumentParser], None]

# Before the first = of a line, but for what is quoted.
_MOST_DOTS = 100
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'')


class _Parser(argparse.ArgumentParser):
    """flags: the actions by the names of their flags, without the dashes."""

    def __init__(self, add_arguments: AddArguments):
        super().__init__(add_help=False, allow_abbrev=False)
        self.flags: dict[str, argparse.Action] = {}
        add_arguments(self)

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        action = super().add_argument(*names, **options)
        self.flags[names[0].removeprefix("--")] = action
        return action

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def given(options: argparse.Namespace, add_arguments: AddArguments) -> dict[str, Any]:
    """What the flags say, else the file of --config, in a form that depends neither on the working folder nor on what
    "auto" means.

    Raises DataError for a file that `read` refuses.
    """
    told: dict[str, Any] = {}
    if options.config is not None:
        filed = read(Path(options.config), add_arguments)
        told = {name: value for name, value in vars(filed).items() if value is not None}
    names = {_name(key) for key in _Parser(add_arguments).flags if key not in _OF_THE_CALL}
    flags = {name: value for name, value in vars(options).items() if name in names and value is not None}
    _make_absolute(flags, Path(), told.get("data"))
    for one, other in (("test_fraction", "test_last"), ("test_last", "test_fraction")):
        # Of the two ways to say what the test part is, the flag counts.
        if one in flags:
            told.pop(other, None)
    told |= flags
    if "device" in told:
        told["device"] = resolve_device(told["device"]).name
    return told


def resolved(options: argparse.Namespace, add_arguments: AddArguments) -> argparse.Namespace:
    """All settings of a new run; None for those that nothing was said about and that have no default."""
    told = given(options, add_arguments)
    settings = _Parser(add_arguments).parse_args([])
    vars(settings).update({**DEFAULTS, **told})
    settings.device = resolve_device(settings.device).name
    if settings.stream == "auto":
        # A run that is resumed reads as it did before, however much memory is free then.
        settings.stream = "always" if is_large(settings.data, settings.target, to_train=True) else "never"
    if settings.lr is None:
        settings.lr = SGD_LR if settings.optimizer == "sgd" else LR
    if settings.early_stopping is not None and settings.validation_fraction is None:
        settings.validation_fraction = VALIDATION_FRACTION
    if options.out is None and options.checkpoint_every is not None:
        raise ValueError("--checkpoint-every needs --out FOLDER, where the checkpoints go")
    if settings.checkpoint_every is None:
        settings.checkpoint_every = CHECKPOINT_EVERY
    return settings


def gone_on(
    options: argparse.Namespace, saved: argparse.Namespace, folder: Path, anew: str, add_arguments: AddArguments
) -> argparse.Namespace:
    """The settings with which the run in `folder` goes on: those it has, and a device and more epochs if flags say so.

    anew: the command of a new run with its settings. Raises ValueError, with the flag's name, for another flag that is
    given and is not what the run has.
    """
    if options.out is not None and Path(options.out).resolve() != folder.resolve():
        raise ValueError(f"--out {options.out} contradicts --resume {folder}: a run stays in its folder")
    settings = copy(saved)
    for name, value in given(options, add_arguments).items():
        there = getattr(saved, name)
        if value == there:
            continue
        longer = name == "epochs" and value > there and saved.schedule not in FIXED_BY_EPOCHS
        if name == "device" or longer:
            setattr(settings, name, value)
            continue
        if name == "epochs" and value > there:
            raise ValueError(
                f"--epochs {value}: the {saved.schedule} schedule of the run in {folder} was that of {there} epochs; "
                f"{anew} --epochs {value} trains anew"
            )
        has = "no such flag" if there is None else f"{_flag(name)} {_text(there)}"
        raise ValueError(f"{_flag(name)} {_text(value)} contradicts the run in {folder}, which has {has}")
    return settings


def write(path: Path, settings: argparse.Namespace) -> None:
    """Raises DataError when it cannot be written."""
    lines = ["# The settings of this run, by the names of the flags of `gpu-nn train`."]
    for name, value in vars(settings).items():
        if value is not None and _key(name) not in _OF_THE_CALL:
            lines.append(f"{_key(name)} = {_toml(value)}")
    with atomic_write(path) as file:
        file.write("\n".join([*lines, ""]).encode())


def read(path: Path, add_arguments: AddArguments) -> argparse.Namespace:
    """Raises DataError for a file that cannot be read, is no TOML, or has a key or a value that is not known."""
    parser = _Parser(add_arguments)
    try:
        text = path.read_bytes().decode()
        _check_keys(text)
        told = tomllib.loads(text)
        arguments = [argument for key, value in told.items() for argument in _arguments(key, value, parser)]
        settings = parser.parse_args(arguments)
        # Flags that are on or off have a value even where nothing was said.
        for key in _OF_THE_CALL:
            vars(settings).pop(_name(key), None)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no configuration of a run: {error}") from None
    _make_absolute(vars(settings), path.parent)
    return settings


def _check_keys(text: str) -> None:
    """Raises ValueError for a key of very many parts, for which the TOML reader takes memory by their square."""
    for number, line in enumerate(text.splitlines(), 1):
        key = _QUOTED.sub("", line).partition("#")[0].partition("=")[0]
        if key.count(".") > _MOST_DOTS:
            raise ValueError(f"line {number} has a key of more than {_MOST_DOTS} parts; keys are names of flags")


def _arguments(key: str, value: Any, parser: _Parser) -> list[str]:
    """The arguments that say what the file says. Raises ValueError for a key that is not known, or a wrong type."""
    if key in _OF_THE_CALL:
        raise ValueError(f"{key} = {reprlib.repr(value)} is no setting of a run; give the flag --{key}")
    if key not in parser.flags:
        if any(isinstance(entry, dict) for entry in (value if isinstance(value, list) else [value])):
            raise ValueError(f"{key} is a table, and there are none in it: write batch-size = 32 with no [{key}] above")
        raise ValueError(not_one_of(key, parser.flags.keys() - set(_OF_THE_CALL)))
    action = parser.flags[key]
    kind = action.type if isinstance(action.type, Kind) else TEXT
    entries = value if isinstance(value, list) and list in kind.types else [value]
    if any(type(entry) not in kind.types or isinstance(entry, list) for entry in entries):
        raise ValueError(f"{key} = {reprlib.repr(value)}; expected {kind.said}")
    if kind.separator is not None:
        entries = [kind.separator.join(map(str, entries))]
    return [f"--{key}={entry}" for entry in entries]


def _make_absolute(settings: dict[str, Any], folder: Path, data: str | None = None) -> None:
    """Let paths that begin at the folder begin at the root. data: where `settings` does not say what the data are."""
    for name in settings.keys() & {"data", "tensorboard", "log"}:
        value = settings[name]
        if isinstance(value, list):
            settings[name] = [str((folder / path).absolute()) for path in value]
        elif value is not None:
            settings[name] = str((folder / value).absolute())
    if settings.get("target") is not None:
        path = str((folder / settings["target"]).absolute())
        if is_label_file(settings.get("data") or data, path):
            settings["target"] = path


def _key(name: str) -> str:
    return name.replace("_", "-")


def _name(key: str) -> str:
    return key.replace("-", "_")


def _flag(name: str) -> str:
    return f"--{_key(name)}"


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int | float):
        return repr(value)
    # A JSON string is a TOML string, but for one character that TOML wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")
