"""CuPy's names and the parameters of its functions, in ``face.json``, which this writes from an installed CuPy.

python -m tests.cuda_emulator.cupy_proxy.face > face.json
"""

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any


def parameters_of(function: Any) -> list[str] | None:
    """The names a function takes by keyword; None where nobody says, or where it takes any."""
    try:
        taken = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        # The docstring's first line, "ndarray.sum(self, axis=None, ...)" by Cython, "exp(x, /, ...)" for ufuncs.
        found = re.match(r"[\w.]+\((.*?)\)(?: ->|\n|$)", function.__doc__ or "")
        if not found:
            return None
        names = [part.partition("=")[0].strip().rpartition(" ")[2] for part in found[1].split(",")]
        return (
            None
            if any(name.startswith("**") for name in names)
            else [name.lstrip("*") for name in names if name.isidentifier()]
        )
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        return None
    return [parameter.name for parameter in taken if parameter.kind is not parameter.VAR_POSITIONAL]


def spelled(names: list[str] | None) -> str | None:
    return None if names is None else " ".join(names)


def read_from_cupy() -> dict[str, Any]:
    """The face of the installed CuPy; it needs no GPU."""
    import cupy
    import numpy

    public = [name for name in dir(cupy) if not name.startswith("_")]
    members = [name for name in dir(cupy.ndarray) if not name.startswith("_")]
    functions = {name: getattr(cupy, name) for name in public if callable(getattr(cupy, name))}
    methods = {name: getattr(cupy.ndarray, name) for name in members if callable(getattr(cupy.ndarray, name))}
    return {
        "version": cupy.__version__,
        "names": spelled(public),
        "numpys_own": spelled([name for name in public if getattr(numpy, name, None) is getattr(cupy, name)]),
        "functions": {name: spelled(parameters_of(function)) for name, function in functions.items()},
        "methods": {name: spelled(parameters_of(method)) for name, method in methods.items()},
        "attributes": spelled([name for name in members if name not in methods]),
        "cuda": spelled([name for name in dir(cupy.cuda) if not name.startswith("_")]),
        "generator": spelled([name for name in dir(cupy.random.Generator) if not name.startswith("_")]),
    }


def _parameters(functions: dict[str, str | None]) -> dict[str, frozenset[str] | None]:
    return {name: None if taken is None else frozenset(taken.split()) for name, taken in functions.items()}


def committed() -> dict[str, Any]:
    """The face that the proxy shows, as it is in the file."""
    face: dict[str, Any] = json.loads((Path(__file__).parent / "face.json").read_text(encoding="utf-8"))
    return face


_FACE = committed()
VERSION: str = _FACE["version"]
NAMES = frozenset(_FACE["names"].split())
NUMPYS_OWN = frozenset(_FACE["numpys_own"].split())
FUNCTIONS = _parameters(_FACE["functions"])
METHODS = _parameters(_FACE["methods"])
ATTRIBUTES = frozenset(_FACE["attributes"].split())
CUDA = frozenset(_FACE["cuda"].split())
GENERATOR = frozenset(_FACE["generator"].split())

if __name__ == "__main__":
    json.dump(read_from_cupy(), sys.stdout, indent=1)
    sys.stdout.write("\n")
