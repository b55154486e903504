"""How much a packed file can hold: the bound on what a header may claim."""

from pathlib import Path

# Deflate, of gzip and zip, spends at least 2 bits on a run of 258 bytes.
_BYTES_PER_BYTE = 1032


def max_inflated_bytes(path: Path) -> int:
    """The most bytes that a file packed with deflate can unpack to."""
    return _BYTES_PER_BYTE * path.stat().st_size
