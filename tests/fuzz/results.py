"""What fuzzers and kill tests found, as JSON files with the machine and the versions."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def write(name: str, result: dict[str, Any], *packages: str) -> None:
    machine = {
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
    text = json.dumps({"machine": machine, **result}, indent=1)
    (FOLDER / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
