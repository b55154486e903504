"""history.json, of a run that is finished.

"epochs": the records. "test": "loss", "accuracy" and "rows" of the test part. "data": what a checkpoint says of
them, and of the test part alike; without it in runs that were finished before runs kept that.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_nn.cli.report import Tested
from gpu_nn.errors import DataError
from gpu_nn.training import History
from gpu_nn.training.checkpoint import Checkpoint
from gpu_nn.validation import check_json_int

_SENSELESS = (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError)


def text_of(history: History, tested: Tested, data: dict[str, Any]) -> str:
    """What the file holds."""
    return json.dumps({"test": asdict(tested), "data": data, **json.loads(history.to_json())}, indent=1)


def read_history(path: Path) -> History:
    """The records. Raises DataError where there are none, or make no sense."""
    try:
        return History.from_json(path.read_text())
    except _SENSELESS as error:
        raise _no_history(path, error) from None


def history_of(path: Path, training: dict[str, Any]) -> History:
    """The records of a checkpoint at `path`. Raises DataError where they make no sense."""
    try:
        return History.from_json(json.dumps({"epochs": training["history"]}))
    except _SENSELESS as error:
        raise _no_history(path, error) from None


def steps_of(checkpoint: Checkpoint) -> int:
    """The optimizer steps before it. Raises DataError where it does not say."""
    try:
        return check_json_int("steps", checkpoint.training["position"]["steps"])
    except _SENSELESS as error:
        raise DataError(f"{checkpoint.path} has a header that makes no training: {error!r}") from None


def read_tested(path: Path) -> Tested | None:
    """What the test gave; None of a run that was finished before runs kept it. Raises DataError as `read_history`."""
    try:
        told = json.loads(path.read_text()).get("test")
        if told is None:
            return None
        tested = Tested(float(told["loss"]), float(told["accuracy"]), int(told["rows"]))
        if not all(map(math.isfinite, asdict(tested).values())):
            raise ValueError(f"a test of {told}")
        return tested
    except _SENSELESS as error:
        raise _no_history(path, error) from None


def read_tested_on(path: Path) -> dict[str, Any] | None:
    """What "data" says of the test part; None where it says nothing. Raises DataError as `read_history`."""
    try:
        told = json.loads(path.read_text()).get("data") or {}
        return told.get("test")
    except _SENSELESS as error:
        raise _no_history(path, error) from None


def _no_history(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is no history of a run: {error!r}")
