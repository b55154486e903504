"""Names for what the runtime's messages give as places in a library: source lines, and variables in shared memory."""

import re
import shutil
from pathlib import Path

from .compiler import HERE, run


def with_names(message: str) -> str:
    """A message with ``<library+offset>`` (instructions) and ``<library%offset>`` (shared memory) replaced by names."""
    message = re.sub(r"<([^<>]+)\+([0-9a-f]+)>", lambda found: source_line(Path(found[1]), int(found[2], 16)), message)
    return re.sub(r"<([^<>]+)%([0-9a-f]+)>", lambda found: shared_variable(Path(found[1]), int(found[2], 16)), message)


def source_line(library: Path, offset: int) -> str:
    """`file:line` of an instruction: where inlining stacks several, the innermost outside the emulator's headers."""
    frames = []
    if shutil.which("addr2line"):
        frames = run(["addr2line", "-i", "-e", str(library), hex(offset)]).splitlines()
    # Sources without a folder of their own were compiled in a temporary one.
    built_in = f"{library.parent}/{library.stem.partition('-')[0]}-"
    frames = [
        re.sub(f"^{re.escape(built_in)}[^/]*/", "", frame.partition(" (")[0]) for frame in frames if frame[0] != "?"
    ]
    own = [frame for frame in frames if str(HERE / "include") not in frame]
    return (own or frames or [f"{library.name}+{offset:#x}"])[0]


def shared_variable(library: Path, offset: int) -> str:
    """The `__shared__` array that holds this byte of the module's shared memory, and which of its bytes it is."""
    for fields in map(str.split, run(["readelf", "-sW", str(library)]).splitlines()):
        if "TLS" not in fields or "UND" in fields:
            continue
        begin, size = int(fields[1], 16), int(fields[2], 0)
        if begin <= offset < begin + size:
            name = run(["c++filt", fields[-1]]).strip() if shutil.which("c++filt") else fields[-1]
            return f"{name} (byte {offset - begin})"
    return "between two arrays"
