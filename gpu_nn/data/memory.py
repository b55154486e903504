"""How much memory is free, and how much a file can take."""

import os
from pathlib import Path

from gpu_nn.errors import DataError

# Deflate (gzip, zip) needs at least 2 bits for a run of 258 bytes.
_MAX_DEFLATE_RATIO = 1032


def available_bytes() -> int | None:
    """The memory that can be allocated without swapping; None where the system does not report it."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def check_fits(source: object, n_bytes: int) -> None:
    """Raises DataError where n_bytes are not free: a system that overcommits memory would kill the process later."""
    available = available_bytes()
    if available is not None and n_bytes > available:
        raise DataError(f"{source} does not fit in memory: it takes {n_bytes >> 20} MiB, {available >> 20} are free")


def max_inflated_bytes(path: Path) -> int:
    """An upper bound on the size of a deflate-compressed file after decompression."""
    return _MAX_DEFLATE_RATIO * path.stat().st_size
