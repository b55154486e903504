"""Finds cuda_src, and inlines a .cu file's own headers into one text."""

import re
from functools import cache
from pathlib import Path

from gpu_nn.errors import DeviceError
from gpu_nn.kernels.activations import cuda_header

_PACKAGE = Path(__file__).resolve().parents[2]
# Headers generated from tables of the package; they are not in the folder.
_GENERATED = {"activations.cuh": cuda_header}
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[^\n]*$', re.MULTILINE)


@cache
def source_folder() -> Path:
    """cuda_src: inside the package in a wheel, beside it in a checkout."""
    places = (_PACKAGE / "cuda_src", _PACKAGE.parent / "cuda_src")
    for place in places:
        if place.is_dir():
            return place
    raise DeviceError(
        f"the CUDA sources are missing: neither {places[0]} nor {places[1]} exists. Install gpu_nn again; a copy of "
        f"the package made by hand needs the folder cuda_src beside it"
    )


@cache
def source(file: str) -> str:
    """The text of cuda_src/`file` with each of its own headers in place of the first #include of it.

    The key of CuPy's disk cache covers source and options but not headers, so it would miss a changed header. Includes
    in angle brackets, CUDA's own, stay.
    """
    return _inlined(file, source_folder(), set())


def _inlined(file: str, folder: Path, seen: set[str]) -> str:
    seen.add(file)
    if file in _GENERATED:
        return _GENERATED[file]()
    path = folder / file
    if not path.is_file():
        raise DeviceError(f"the CUDA source {file} is missing in {folder}: install gpu_nn again")
    text = path.read_text(encoding="utf-8").replace("#pragma once", "")

    def header(match: re.Match[str]) -> str:
        name = match[1]
        if name in seen:
            return ""
        line = text.count("\n", 0, match.start()) + 2
        return f'#line 1 "{name}"\n{_inlined(name, folder, seen)}\n#line {line} "{file}"'

    return _INCLUDE.sub(header, text)
