"""python -m benchmarks.resources: the table in cuda_src/README.md of what every kernel takes on every architecture.

The instantiations that the launch code names as those it can ask for are compiled by NVRTC with the launch code's own
options, each for every architecture; ptxas says how many registers it uses, how much static shared memory, and whether
registers are spilled. No GPU is needed, but twenty minutes of one core: only operations whose source has changed
since the table was made are compiled again.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from benchmarks import nvrtc
from benchmarks.nvrtc import Resources
from gpu_nn.kernels.cuda_kernels.launch import OPTIONS, Kernel
from gpu_nn.kernels.cuda_kernels.sources import source, source_folder

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

# One file an operation: cuda_src/<name>.cu is launched by cuda_kernels/<name>.py.
OPERATIONS = tuple(sorted(path.stem for path in source_folder().glob("*.cu")))

# Kernels compiled together: a program costs a third of a second before its first kernel.
_TOGETHER = 12

# CuPy adds this one always.
_OPTIONS = (*OPTIONS, "-ftz=true")

README = source_folder() / "README.md"
_OPENING, _CLOSING = "<!-- resources -->\n", "<!-- /resources -->"

Instance = tuple[str, str, int]  # operation, name of the kernel, architecture
Measured = Mapping[Instance, Resources]


@cache
def every_kernel(operation: str) -> tuple[Kernel, ...]:
    """Each instantiation that the launch code of `operation` names as one that can be asked for."""
    return tuple(import_module(f"gpu_nn.kernels.cuda_kernels.{operation}").every_kernel())


def instances(operations: Iterable[str], architectures: Iterable[int]) -> list[Instance]:
    """What there is to compile of these operations for these architectures."""
    return [
        (operation, kernel.name, architecture)
        for architecture in architectures
        for operation in operations
        for kernel in every_kernel(operation)
        if architecture >= kernel.since
    ]


def _parts(name: str) -> tuple[str, list[str]]:
    """The function and the template arguments of a name expression."""
    function, _, rest = name.partition("<")
    return function, re.split(r",\s*", rest.removesuffix(">")) if rest else []


def row_of(name: str) -> str:
    """The row of the table to which a kernel belongs: its name with * for what shares a row."""
    function, arguments = _parts(name)
    if function.startswith("softmax_cross_entropy_"):
        arguments[1:4] = ["*"]  # targets, class weights, complement
    elif function.startswith("softmax_") or function == "gather":
        arguments[0] = "*"  # softmax or log_softmax or …; the source's type
    elif function.startswith(("bias_activation", "batch_norm", "layer_norm")):
        arguments[1] = "*"  # the activation
    return f"{function}<{', '.join(arguments)}>" if arguments else function


def measure(wanted: Iterable[Instance]) -> Measured:
    """The resources of these instantiations, compiled on all cores that this process may use."""
    programs: dict[tuple[str, int], list[str]] = {}
    for operation, name, architecture in wanted:
        programs.setdefault((operation, architecture), []).append(name)
    jobs = [
        (operation, architecture, names[start : start + _TOGETHER])
        for (operation, architecture), names in programs.items()
        for start in range(0, len(names), _TOGETHER)
    ]

    def compiled(job: tuple[str, int, Sequence[str]]) -> dict[str, Resources]:
        operation, architecture, names = job
        return nvrtc.compile_kernels(source(f"{operation}.cu"), names, architecture, _OPTIONS)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        done = list(pool.map(compiled, jobs))
    return {
        (operation, name, architecture): resources
        for (operation, architecture, _), found in zip(jobs, done, strict=True)
        for name, resources in found.items()
    }


def rows(measured: Measured) -> dict[str, dict[str, str]]:
    """The table's cells by row and architecture: registers, static shared memory, and what is spilled."""
    members: dict[str, dict[str, list[Resources]]] = {}
    for (operation, name, architecture), resources in measured.items():
        row = members.setdefault(f"{operation} | `{row_of(name)}`", {})
        row.setdefault(f"sm_{architecture}", []).append(resources)
    return {row: {column: _cell(found) for column, found in cells.items()} for row, cells in members.items()}


def _cell(found: Sequence[Resources]) -> str:
    shared, spilled = max(r.shared for r in found), max(r.spills for r in found)
    cell = _range([r.registers for r in found])
    cell += f" · {shared} B" if shared else ""
    return cell + (f", {spilled} B spilled" if spilled else "")


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"


def digest(operation: str) -> str:
    """Of all that decides about an operation's resources: its source but for comments, its kernels, the compiler."""
    code = re.sub(r"//[^\n]*|/\*.*?\*/", " ", source(f"{operation}.cu"), flags=re.DOTALL)
    code = re.sub(r'#line \d+ "[^"]*"', " ", code)
    parts = [*code.split(), *map(str, instances([operation], ARCHITECTURES)), *_OPTIONS, nvrtc.version()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Table:
    """The table in README.md: cells by row and architecture, and of which source each operation's rows were made."""

    cells: Mapping[str, Mapping[str, str]]
    digests: Mapping[str, str]

    @staticmethod
    def read(readme: str) -> "Table":
        text = readme.partition(_OPENING)[2].partition(_CLOSING)[0]
        lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
        cells = {
            f"{operation} | {kernel}": {
                column: cell for column, cell in zip(lines[0][2:], row, strict=True) if cell != "—"
            }
            for operation, kernel, *row in lines[2:]
        }
        return Table(cells, dict(re.findall(r"<!-- of (\w+) ([0-9a-f]{16}) -->", text)))

    def text(self) -> str:
        columns = [f"sm_{architecture}" for architecture in ARCHITECTURES]
        lines = [
            f"NVRTC {nvrtc.version()}.",
            "",
            *(f"<!-- of {operation} {made_of} -->" for operation, made_of in sorted(self.digests.items())),
            "",
            f"| file | kernel | {' | '.join(columns)} |",
            f"|---|---|{'---:|' * len(columns)}",
        ]
        for row in sorted(self.cells, key=lambda row: row.partition(" | ")[0]):
            lines.append(f"| {row} | {' | '.join(self.cells[row].get(column, '—') for column in columns)} |")
        return "\n".join(lines)

    def put_into(self, readme: str) -> str:
        before, opening, rest = readme.partition(_OPENING)
        _, closing, after = rest.partition(_CLOSING)
        if not closing:
            raise SystemExit(f"{README} has no place for the table; expected {_OPENING.strip()} … {_CLOSING}")
        return f"{before}{opening}{self.text()}\n{closing}{after}"


def main() -> None:
    for operation in OPERATIONS:
        current = digest(operation)
        if Table.read(README.read_text(encoding="utf-8")).digests.get(operation) == current:
            continue
        wanted = instances([operation], ARCHITECTURES)
        print(f"{operation}: {len(wanted)} kernels", file=sys.stderr, flush=True)
        made = rows(measure(wanted))
        # Read again, for it took minutes.
        readme = README.read_text(encoding="utf-8")
        table = Table.read(readme)
        kept = {row: cells for row, cells in table.cells.items() if row.partition(" | ")[0] != operation}
        table = Table(kept | made, {**table.digests, operation: current})
        README.write_text(table.put_into(readme), encoding="utf-8")


if __name__ == "__main__":
    main()
