"""The settings of a run: flags where they are given, else defaults; and the file that keeps them beside the run.

config.toml holds one key for each flag of `gpu-nn train` that has a value, by the flag's name: batch-size = 32. It is
read through the flags' own checks.
"""

import argparse
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from gpu_nn.data.sources import names_a_file
from gpu_nn.device import resolve_device
from gpu_nn.errors import DataError
from gpu_nn.model_file import whole_file
from gpu_nn.training import Every

NAME = "config.toml"

DEFAULTS: dict[str, Any] = {
    "test_fraction": 0.2,
    "hidden": [256],
    "activation": "relu",
    "dropout": 0.0,
    "epochs": 50,
    "batch_size": 32,
    "optimizer": "adam",
    "label_smoothing": 0.0,
    "complement_weight": 1.0,
    "seed": 0,
    "device": "auto",
    "dtype": "float32",
}
SGD_LR, LR = 0.1, 0.001
VALIDATION_FRACTION = 0.1
CHECKPOINT_EVERY = Every(seconds=60)

# Flags that say how this call goes; all others say what the run is.
_OF_THE_CALL = ("json", "resume", "out")

AddArguments = Callable[[argparse.ArgumentParser], None]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def given(options: argparse.Namespace, add_arguments: AddArguments) -> dict[str, Any]:
    """The settings that have a value, in a form that depends neither on the working folder nor on what "auto" means."""
    names = vars(_parser(add_arguments).parse_args([])).keys() - set(_OF_THE_CALL)
    told = {name: value for name, value in vars(options).items() if name in names and value is not None}
    for name in told.keys() & {"data", "tensorboard"}:
        told[name] = _absolute(told[name])
    if "target" in told and names_a_file(told.get("data"), told["target"]):
        told["target"] = _absolute(told["target"])
    if "log" in told:
        told["log"] = [_absolute(path) for path in told["log"]]
    if "device" in told:
        told["device"] = resolve_device(told["device"]).name
    return told


def resolved(options: argparse.Namespace, add_arguments: AddArguments) -> argparse.Namespace:
    """All settings of a new run; None for those that nothing was said about and that have no default."""
    told = given(options, add_arguments)
    settings = _parser(add_arguments).parse_args([])
    vars(settings).update({**DEFAULTS, **told})
    settings.device = resolve_device(settings.device).name
    if settings.lr is None:
        settings.lr = SGD_LR if settings.optimizer == "sgd" else LR
    if settings.early_stopping is not None and settings.validation_fraction is None:
        settings.validation_fraction = VALIDATION_FRACTION
    if options.out is None and settings.checkpoint_every is not None:
        raise ValueError("--checkpoint-every needs --out FOLDER, where the checkpoints go")
    if settings.checkpoint_every is None:
        settings.checkpoint_every = CHECKPOINT_EVERY
    return settings


def check_agrees(
    options: argparse.Namespace, saved: argparse.Namespace, folder: Path, add_arguments: AddArguments
) -> None:
    """Raises ValueError, with the flag's name, for a flag that is given and is not what the run in `folder` has."""
    if options.out is not None and Path(options.out).resolve() != folder.resolve():
        raise ValueError(f"--out {options.out} contradicts --resume {folder}: a run stays in its folder")
    for name, value in given(options, add_arguments).items():
        there = getattr(saved, name)
        if value != there:
            has = "no such flag" if there is None else f"{_flag(name)} {_text(there)}"
            raise ValueError(f"{_flag(name)} {_text(value)} contradicts the run in {folder}, which has {has}")


def write(path: Path, settings: argparse.Namespace) -> None:
    """Raises DataError when it cannot be written."""
    lines = ["# The settings of this run, by the names of the flags of `gpu-nn train`."]
    for name, value in vars(settings).items():
        if value is not None and name not in _OF_THE_CALL:
            lines.append(f"{_flag(name).removeprefix('--')} = {_toml(value)}")
    with whole_file(path) as file:
        file.write("\n".join([*lines, ""]).encode())


def read(path: Path, add_arguments: AddArguments) -> argparse.Namespace:
    """Raises DataError for a file that cannot be read, is no TOML, or has a key or a value that is not known."""
    try:
        told = tomllib.loads(path.read_bytes().decode())
        arguments: list[str] = []
        for key, value in told.items():
            entries = value if isinstance(value, list) else [value]
            if key in _OF_THE_CALL or not all(type(entry) in (str, int, float) for entry in entries):
                raise ValueError(f"{key} = {value!r} is no setting of a run")
            if all(type(entry) is int for entry in entries):
                entries = [",".join(map(str, entries))]
            arguments += [f"--{key}={entry}" for entry in entries]
        return _parser(add_arguments).parse_args(arguments)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no configuration of a run: {error}") from None


def _parser(add_arguments: AddArguments) -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    add_arguments(parser)
    return parser


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int | float):
        return repr(value)
    # A JSON string is a TOML string, but for one character that TOML wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")
