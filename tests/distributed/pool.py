"""Processes that mpiexec starts once, and that then run one job after the other as its ranks.

Each job is a command line of `gpu-nn` or the source of a program, in each rank's own words where they differ. What ends
the processes, such as MPI_Abort, needs processes of its own: `tests.distributed.processes`.
"""

import contextlib
import io
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from gpu_nn.distributed.environment import rank_and_world_size
from tests.distributed.processes import environment, mpi

SECONDS = 120  # for a job; generous, as this machine may be busy


class Done(NamedTuple):
    """What a rank's job ended with, as its process would have: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


class Pool:
    def __init__(self, size: int):
        self.size = size
        self._pipes = tempfile.TemporaryDirectory()
        places = [Path(self._pipes.name) / str(rank) for rank in range(size)]
        for place in places:
            os.mkfifo(f"{place}.in")
            os.mkfifo(f"{place}.out")
        command = mpi(size, "-m", "tests.distributed.pool", self._pipes.name)
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment())
        self._jobs = [Path(f"{place}.in").open("w") for place in places]  # noqa: SIM115 closed by `close`
        self._found: list[queue.Queue[str]] = [queue.Queue() for _ in places]
        for place, found in zip(places, self._found, strict=True):
            threading.Thread(target=self._read, args=(f"{place}.out", found), daemon=True).start()

    @staticmethod
    def _read(path: str, found: "queue.Queue[str]") -> None:
        with open(path) as lines:
            for line in lines:
                found.put(line)
        found.put("")

    def run(self, folder: Path, *jobs: tuple[str, list[Any]], **variables: str) -> list[Done]:
        """What each rank's job ended with. jobs: one for all, or one each: "command" or a source, and its arguments."""
        for rank, job in enumerate(self._jobs):
            what, arguments = jobs[rank % len(jobs)]
            job.write(json.dumps([str(folder), variables, what, [str(argument) for argument in arguments]]) + "\n")
            job.flush()
        lines = [found.get(timeout=SECONDS) for found in self._found]
        assert all(lines), f"the processes ended with {self._process.wait()}"
        return [Done(*json.loads(line)) for line in lines]

    def close(self) -> None:
        """Ends the processes, also those that wait for each other for ever."""
        for job in self._jobs:
            with contextlib.suppress(BrokenPipeError):
                job.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()
        self._pipes.cleanup()


def done(what: str, arguments: list[str]) -> Done:
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            if what == "command":
                from gpu_nn.cli import main

                code = main(arguments)
            else:
                sys.argv = ["-c", *arguments]
                exec(compile(what, "program", "exec"), {"__name__": "__main__"})
        except SystemExit as end:
            code = end.code
        except BaseException:
            code = 1
            traceback.print_exc()
    return Done(code or 0, out.getvalue(), err.getvalue())


def work(pipes: Path) -> None:
    """What each of the processes does, until there are no more jobs. It waits for them in no MPI, which would poll."""
    here, variables, rank = os.getcwd(), dict(os.environ), rank_and_world_size()[0]
    with open(pipes / f"{rank}.in") as jobs, open(pipes / f"{rank}.out", "w") as found:
        for job in jobs:
            folder, more, what, arguments = json.loads(job)
            os.chdir(folder)
            os.environ.update(more)
            found.write(json.dumps(done(what, arguments)) + "\n")
            found.flush()
            os.chdir(here)
            os.environ.clear()
            os.environ.update(variables)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
