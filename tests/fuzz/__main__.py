"""python -m tests.fuzz [--inputs 20000] [--only NAME] [--first 0]: damaged files for every reader.

Each input is a valid file with a few changes, or one with a false header, generated at random from the format's name
and the input's number alone: `--only npz --first 1234 --inputs 1` generates that one again. Every reader must read it,
or raise a DataError of one printable line, within one second of CPU time and 64 MiB of memory. It may not open a file
for writing, unpickle, or start a process. From a damaged checkpoint the loader must fall back to the previous one.

Each format is read in a process of its own; a crash or a hang of that process is a problem too. Writes
tests/fuzz/results/fuzz.json. Exit code 1 when there is a problem.
"""

import argparse
import multiprocessing
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.formats import FORMATS
from tests.fuzz.results import write
from tests.fuzz.worker import INPUT, MEMORY, READ, REFUSED, SECONDS, work

# Seconds without progress after which the process is taken to hang where no signal reaches it.
_PATIENCE = 60

# Problems after which a format is not fuzzed further.
_ENOUGH = 20


@dataclass
class Outcome:
    """inputs = read + refused + those that ended the process. slowest: the most CPU seconds of one read. memory: the
    most bytes of one input. problems: one line each."""

    inputs: int = 0
    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    memory: int = 0
    problems: list[str] = field(default_factory=list)


def fuzzed(
    name: str, inputs: int, first: int = 0, formats: str = "tests.fuzz.formats", patience: float = _PATIENCE
) -> Outcome:
    """Fuzz one format of the module `formats` with `inputs` inputs from number `first` on."""
    # Processes are forked from one that has imported what they need; scikit-learn's data sets take longest.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__, formats, "sklearn.datasets"])
    # Shared memory: complete even when the process dies.
    counts = context.RawArray("d", 5)
    problems: list[str] = []
    end = first + inputs
    with tempfile.TemporaryDirectory(dir=_in_memory()) as folder:
        while first < end and len(problems) < _ENOUGH:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=work, args=(formats, name, first, end, folder, counts, theirs), daemon=True
            )
            counts[INPUT] = first
            process.start()
            theirs.close()
            hangs = False
            while True:
                before = counts[INPUT]
                try:
                    if ours.poll(patience):
                        problems.append(ours.recv())
                    elif counts[INPUT] == before:
                        hangs = True
                        break
                except EOFError:
                    break
            if hangs:
                process.kill()
            process.join()
            at = int(counts[INPUT])
            if at == end and process.exitcode == 0:
                break
            end_of_it = "does not come back" if hangs else f"ends the process with code {process.exitcode}"
            problems.append(f"{name} {at}: {end_of_it}")
            first = at + 1
    return Outcome(inputs, int(counts[READ]), int(counts[REFUSED]), counts[SECONDS], int(counts[MEMORY]), problems)


def _in_memory() -> str | None:
    """A folder in memory, where the system has one: 20,000 files a format would wear a disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def rendered(outcomes: dict[str, dict[str, Any]]) -> str:
    lines = ["| reader | inputs | read | refused | slowest | most memory | problems |", "|---|" + "---:|" * 6]
    for name, outcome in outcomes.items():
        counts = " | ".join(f"{outcome[key]:,}" for key in ("inputs", "read", "refused"))
        most = f"{1000 * outcome['slowest']:.0f} ms | {outcome['memory'] / 2**20:.1f} MiB"
        lines.append(f"| {name} | {counts} | {most} | {len(outcome['problems'])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--only", choices=tuple(FORMATS), action="append")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    names = options.only or list(FORMATS)

    def fuzz_and_report(name: str) -> dict[str, Any]:
        outcome = vars(fuzzed(name, options.inputs, options.first))
        print(
            f"{name}: {len(outcome['problems'])} problems", *outcome["problems"], sep="\n", file=sys.stderr, flush=True
        )
        return outcome

    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = dict(zip(names, pool.map(fuzz_and_report, names), strict=True))
    if options.only is None:
        write("fuzz", {"readers": outcomes}, "numpy", "pyarrow", "safetensors", "scikit-learn")
    print(rendered(outcomes))
    sys.exit(any(outcome["problems"] for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
