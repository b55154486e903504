"""How much memory there is for data."""

import os

from gpu_nn.errors import DataError


def available_bytes() -> int | None:
    """The memory that could be had now without swapping; None where the system does not say."""
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


def check_fits(source: object, wanted: int) -> None:
    """Raises DataError for more bytes than could be had: systems that promise any memory end who takes it."""
    available = available_bytes()
    if available is not None and wanted > available:
        raise DataError(f"{source} does not fit in memory: it takes {wanted >> 20} MiB, {available >> 20} are free")
