"""Processes with the environment that torchrun sets, started by hand."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.distributed.ports import free_port
from tests.distributed.processes import environment

# Names of launchers' variables, which the tests themselves may have been started with.
LAUNCHERS = ("PMI", "MPI", "OMPI", "SLURM", "TORCHELASTIC")


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in environment().items() if not name.startswith(LAUNCHERS)}


class Started:
    """Ranks 0 … size-1 of a job, or only some of them. variables: of all ranks; `of_ranks`: of each."""

    def __init__(
        self, size: int, *arguments: object, cwd: Path, ranks: Any = None, of_ranks: Any = None, **variables: str
    ):
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size), **variables}
        self.processes = [
            subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                env={**clean_environment(), **place, "RANK": str(rank), **(of_ranks or {}).get(rank, {})},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
            )
            for rank in (range(size) if ranks is None else ranks)
        ]  # fmt: skip

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    def ready(self) -> None:
        """Waits until each has printed "ready"."""
        for process in self.processes:
            assert process.stdout.readline() == "ready\n", process.communicate()

    def ended(self, seconds: float = 120) -> list[tuple[int, str]]:
        """Of each, its exit code and what it said on stderr."""
        until = time.monotonic() + seconds
        said = [process.communicate(timeout=max(until - time.monotonic(), 0.1))[1] for process in self.processes]
        return [(process.returncode, text) for process, text in zip(self.processes, said, strict=True)]
