"""Ranks that the tests of this folder share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.pool import Done, Pool


@pytest.fixture(scope="session")
def _pools() -> Iterator[dict[int, Pool]]:
    pools: dict[int, Pool] = {}
    yield pools
    for pool in pools.values():
        pool.close()


@pytest.fixture
def on_ranks(_pools: dict[int, Pool], tmp_path: Path) -> Callable[..., list[Done]]:
    """Runs a job on so many ranks of MPI, in `tmp_path`; see `Pool.run`. Tests share the processes."""

    def on_ranks(size: int, *jobs: tuple[str, list[Any]], **variables: str) -> list[Done]:
        if size not in _pools:
            _pools[size] = Pool(size)
        try:
            return _pools[size].run(tmp_path, *jobs, **variables)
        except BaseException:
            _pools.pop(size).close()
            raise

    return on_ranks
