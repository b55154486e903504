"""Which reader a file takes: told from its first bytes, else from its suffix."""

import os
from pathlib import Path

from gpu_nn.data.idx import GZIP
from gpu_nn.data.npy import MAGIC
from gpu_nn.errors import DataError

_BEGINNINGS = {MAGIC: "npy", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz", b"PAR1": "Parquet", GZIP: "IDX"}
_SUFFIXES = {
    ".npz": "npz",
    ".npy": "npy",
    ".csv": "CSV",
    ".tsv": "CSV",
    ".txt": "CSV",
    ".parquet": "Parquet",
    ".pq": "Parquet",
}

_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z")
_SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")


def file_format(source: str) -> str:
    """ "folder", "npz", "npy", "IDX", "CSV" or "Parquet". Raises DataError for what is none of them."""
    path = Path(source)
    # Unlike Path's own, os.path's questions have the answer no for what cannot be a path.
    if os.path.isdir(path):
        return "folder"
    try:
        with path.open("rb") as file:
            first = file.read(8)
    except FileNotFoundError:
        raise DataError(f"{source} does not exist") from None
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{source} is no path: {error}") from None
    suffix, inner = path.suffix.lower(), Path(path.stem).suffix.lower()
    if suffix in _SPREADSHEETS:
        raise DataError(f"{source} is a spreadsheet; save it as CSV")
    if (suffix in _PACKED and inner in (*_SUFFIXES, *_SPREADSHEETS)) or (suffix in _SUFFIXES and first[:2] == GZIP):
        raise DataError(f"{source} is packed; unpack it first")
    for beginning, name in _BEGINNINGS.items():
        if first.startswith(beginning):
            return name
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if first.startswith(b"\0\0") or "-idx" in path.name:
        return "IDX"
    shown = f"it begins with {first.hex(' ')}" if first else "it is empty"
    raise DataError(f"{source} is none of npz, npy, CSV, Parquet and IDX: {shown}")
