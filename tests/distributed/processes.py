"""Processes of this machine that train together, by mpiexec or alone."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
MPIEXEC = Path(sys.executable).parent / "mpiexec"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}


def mpi(size: int, *arguments: object) -> list[str]:
    return [str(MPIEXEC), "-n", str(size), sys.executable, *map(str, arguments)]


def unlike(first: Iterable[object], second: Iterable[object]) -> list[str]:
    """Two ranks with arguments of their own."""
    one, other = ([sys.executable, *map(str, arguments)] for arguments in (first, second))
    return [str(MPIEXEC), "-n", "1", *one, ":", "-n", "1", *other]


def ran(folder: Path, start: list[str], timeout: int = 300, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**environment(), **variables}
    return subprocess.run(start, capture_output=True, text=True, check=False, cwd=folder, env=environ, timeout=timeout)
