"""pyarrow, which the extra `parquet` brings, and what it raises."""

from pathlib import Path
from typing import Any

from gpu_nn.errors import DataError


class Errors:
    """Turns what pyarrow raises for files into DataError."""

    def __init__(self, arrow: Any, path: Path):
        self._arrow, self._path = arrow, path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is None or isinstance(error, DataError):
            return
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{self._path} does not exist") from None
        if isinstance(error, MemoryError):
            raise DataError(f"{self._path} does not fit in memory") from None
        if isinstance(error, OSError | ValueError | TypeError | KeyError | IndexError | self._arrow.ArrowException):
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DataError(f"{self._path} is not a Parquet file that can be read: {reason}") from None


def is_text(arrow: Any, kind: Any) -> bool:
    """Whether columns of this kind hold text, be it by their dictionary."""
    if arrow.types.is_dictionary(kind):
        kind = kind.value_type
    return arrow.types.is_string(kind) or arrow.types.is_large_string(kind) or arrow.types.is_string_view(kind)


def pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. Raises DataError, with a hint, without them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError("reading Parquet files needs pyarrow: pip install 'gpu_nn[parquet]'") from None
    return pyarrow, pyarrow.parquet
