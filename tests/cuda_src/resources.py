"""python -m tests.cuda_src resources: cuda_src/RESOURCES.md, a table of what every kernel takes on every architecture.

NVRTC compiles every instantiation that the launch code lists, for each architecture and with the launch code's options;
ptxas reports its registers, its static shared memory and whether registers are spilled. It needs no GPU, but twenty
minutes of one core for all operations. Only operations whose source has changed since are compiled again.
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

from gpu_nn.kernels.cuda_kernels.launch import OPTIONS, Kernel
from gpu_nn.kernels.cuda_kernels.sources import source, source_folder
from tests.cuda_src import nvrtc
from tests.cuda_src.nvrtc import Resources

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

# One file an operation: cuda_src/<name>.cu is launched by cuda_kernels/<name>.py.
OPERATIONS = tuple(sorted(path.stem for path in source_folder().glob("*.cu")))

# Kernels in one program: a program takes a third of a second before its first kernel.
_TOGETHER = 12

# CuPy always adds -ftz=true.
_OPTIONS = (*OPTIONS, "-ftz=true")

FILE = source_folder() / "RESOURCES.md"
_ABOUT = """\
# Registers and shared memory

Made by `python -m tests.cuda_src resources` from every instantiation that the launch code lists (`every_kernel`), each
compiled for each architecture: registers of a thread · bytes of static shared memory of a block, and the most bytes
that a kernel of the row spills, if any. `*` groups kernels into one row, which then has the range of their figures. A
test fails if a kernel spills.

All instantiations are listed with two exceptions, which differ little from those listed. Of thread_per_row there are
the lengths 2 and 3, the longest, and 10, 16 and 32, at which the bound on its registers changes. Of the loss there are
five kinds of targets for each type of logits: int32 indices with the full cost, int64 indices with the standard cross
entropy, int64 indices with class weights, and targets of the logits' type with and without the complement.
"""

Instance = tuple[str, str, int]  # operation, name of the kernel, architecture
Measured = Mapping[Instance, Resources]


@cache
def every_kernel(operation: str) -> tuple[Kernel, ...]:
    """Each instantiation that the launch code of `operation` lists."""
    return tuple(import_module(f"gpu_nn.kernels.cuda_kernels.{operation}").every_kernel())


def instances(operations: Iterable[str], architectures: Iterable[int]) -> list[Instance]:
    """The instantiations of these operations that exist on these architectures."""
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
    """The table row of a kernel: its name with * for the template arguments that a row groups."""
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
    """Hash of what determines an operation's resources: source without comments, kernels, compiler."""
    code = re.sub(r"//[^\n]*|/\*.*?\*/", " ", source(f"{operation}.cu"), flags=re.DOTALL)
    code = re.sub(r'#line \d+ "[^"]*"', " ", code)
    parts = [*code.split(), *map(str, instances([operation], ARCHITECTURES)), *_OPTIONS, nvrtc.version()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Table:
    """RESOURCES.md: cells by row and architecture, and the digest of the source of each operation's rows."""

    cells: Mapping[str, Mapping[str, str]]
    digests: Mapping[str, str]

    @staticmethod
    def read(text: str) -> "Table":
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
            _ABOUT,
            f"NVRTC {nvrtc.version()}.",
            "",
            *(f"<!-- of {operation} {made_of} -->" for operation, made_of in sorted(self.digests.items())),
            "",
            f"| file | kernel | {' | '.join(columns)} |",
            f"|---|---|{'---:|' * len(columns)}",
        ]
        for row in sorted(self.cells, key=lambda row: row.partition(" | ")[0]):
            lines.append(f"| {row} | {' | '.join(self.cells[row].get(column, '—') for column in columns)} |")
        return "\n".join(lines) + "\n"


def written() -> Table:
    """The table in the file; an empty one where there is no file."""
    return Table.read(FILE.read_text(encoding="utf-8")) if FILE.exists() else Table({}, {})


def main() -> None:
    for operation in OPERATIONS:
        current = digest(operation)
        if written().digests.get(operation) == current:
            continue
        wanted = instances([operation], ARCHITECTURES)
        print(f"{operation}: {len(wanted)} kernels", file=sys.stderr, flush=True)
        made = rows(measure(wanted))
        # Read again, since the compilation took minutes.
        table = written()
        kept = {row: cells for row, cells in table.cells.items() if row.partition(" | ")[0] != operation}
        table = Table(kept | made, {**table.digests, operation: current})
        FILE.write_text(table.text(), encoding="utf-8")
