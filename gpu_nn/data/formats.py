"""Which format a file has: by its first bytes, else by its suffix."""

import os
from pathlib import Path

from gpu_nn.data.idx import GZIP_MAGIC
from gpu_nn.data.npy import NPY_MAGIC
from gpu_nn.errors import DataError
from gpu_nn.files import reading

_MAGIC = {NPY_MAGIC: "npy", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz", b"PAR1": "Parquet", GZIP_MAGIC: "IDX"}
_SUFFIXES = {".npz": "npz", ".npy": "npy"}
_SUFFIXES |= dict.fromkeys((".csv", ".tsv", ".txt"), "CSV") | dict.fromkeys((".parquet", ".pq"), "Parquet")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z")
_SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")


def file_format(source: str) -> str:
    """ "folder", "npz", "npy", "IDX", "CSV" or "Parquet". Raises DataError for any other file."""
    path = Path(source)
    # os.path.isdir returns False for a string that cannot be a path, where Path.is_dir raises.
    if os.path.isdir(path):
        return "folder"
    with reading(source, {"is no path": (ValueError,)}), path.open("rb") as file:
        first = file.read(8)
    suffix, inner = path.suffix.lower(), Path(path.stem).suffix.lower()
    if suffix in _SPREADSHEETS:
        raise DataError(f"{source} is a spreadsheet; save it as CSV")
    is_gzip = suffix in _SUFFIXES and first[:2] == GZIP_MAGIC
    if is_gzip or (suffix in _COMPRESSED and inner in (*_SUFFIXES, *_SPREADSHEETS)):
        raise DataError(f"{source} is packed; unpack it first")
    for magic, name in _MAGIC.items():
        if first.startswith(magic):
            return name
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if first.startswith(b"\0\0") or "-idx" in path.name:
        return "IDX"
    shown = f"it begins with {first.hex(' ')}" if first else "it is empty"
    raise DataError(f"{source} is none of npz, npy, CSV, Parquet and IDX: {shown}")
