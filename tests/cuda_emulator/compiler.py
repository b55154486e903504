"""Compiles CUDA C++ with g++ into shared libraries, kept on disk under the hash of all that went into them."""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .errors import CompilationError, EmulatorError, ToolchainMissing

HERE = Path(__file__).parent
# The most dynamic shared memory a block can ask for on any architecture: 227 KB on sm_90.
DYNAMIC_SHARED_CAPACITY = 227 * 1024

COMMON_FLAGS = ("-fPIC", "-fvisibility=hidden", "-fno-working-directory", "-g1", "-w")
KERNEL_FLAGS = (
    *COMMON_FLAGS,
    "-nostdinc",  # as NVRTC: no header of the host is there
    "-fno-exceptions",
    "-fstack-clash-protection",  # a frame larger than a page may not step over the guard below a stack
    "-fno-gnu-unique",  # templates' shared arrays must not merge between modules
    "-fno-extern-tls-init",
    "-fno-strict-aliasing",
    "-fno-math-errno",
    "-ffp-contract=off",  # the same bits on every host
)
# The check for misaligned vectors costs next to nothing. -O2 takes a third longer to build and its runs save less.
PLAIN_FLAGS = ("-O1", "-fsanitize=alignment", "-fno-sanitize-recover=all")
CHECKED_FLAGS = (
    "-O1",
    "-fno-omit-frame-pointer",
    "-fsanitize=thread",  # calls the runtime at every access to memory
    "-fsanitize=bounds,alignment,null,shift,integer-divide-by-zero,signed-integer-overflow,bool,enum,return,unreachable",
    "-fsanitize=float-cast-overflow,vla-bound,pointer-overflow",
    "-fno-sanitize-recover=all",
)

# Without start-up files, C++'s library and the plugin for link-time optimisation, of which a kernel needs none.
QUICK_LINK = ("-nostdlib", "-fno-use-linker-plugin")

EXPORTS = """
#line 1 "name expressions"
extern "C" thread_local char cuda_emulator_dynamic_shared[];
CUDA_EMULATOR_EXPORT void* cuda_emulator_dynamic() { return cuda_emulator_dynamic_shared; }
"""

EXPORT = """
static constexpr auto cuda_emulator_function_%(number)d = &%(expression)s;
CUDA_EMULATOR_EXPORT const cuda_emulator::Kernel cuda_emulator_kernel_%(number)d;
const cuda_emulator::Kernel cuda_emulator_kernel_%(number)d = {
    R"name(%(expression)s)name",
    cuda_emulator::Entry<cuda_emulator_function_%(number)d>::run,
    cuda_emulator::Entry<cuda_emulator_function_%(number)d>::parameters,
    cuda_emulator::Entry<cuda_emulator_function_%(number)d>::count};
"""

# Every undefined thread-local symbol is an `extern __shared__` array: all of them name the one dynamic buffer.
DYNAMIC_SHARED = """
    .section .tbss,"awT",%%nobits
    .balign 256
    .globl cuda_emulator_dynamic_shared
    .hidden cuda_emulator_dynamic_shared
%(names)s
cuda_emulator_dynamic_shared:
    .zero %(bytes)d
    .section .note.GNU-stack,"",%%progbits
"""

# NVRTC's options that have no meaning for g++, without their dashes.
IGNORED_OPTIONS = frozenset(
    (
        *("arch", "gpu-architecture", "fmad", "ftz", "prec-div", "prec-sqrt", "use_fast_math", "restrict"),
        *("G", "device-debug", "lineinfo", "generate-line-info", "dopt", "maxrregcount", "ptxas-options", "Xptxas"),
        *("default-device", "device-as-default-execution-space", "extra-device-vectorization", "device-int128"),
        *("rdc", "relocatable-device-code", "ewp", "extensible-whole-program", "dlto", "split-compile"),
        *("w", "disable-warnings", "diag-suppress", "diag-warn", "diag-error", "err-no", "display-error-number"),
        *("brief", "version-ident", "no-source-include", "modify-stack-limit", "builtin-move-forward"),
    )
)


def cache_folder() -> Path:
    """$CUDA_EMULATOR_CACHE, or a folder of the user's cache."""
    named = os.environ.get("CUDA_EMULATOR_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(named) if named else Path(home) / "gpu_nn" / "cuda_emulator"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"gpu_nn-cuda_emulator-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder.resolve()


def missing_tools() -> list[str]:
    """The programs that building needs and that are not on PATH."""
    return [tool for tool in (os.environ.get("CXX", "g++"), "readelf") if shutil.which(tool) is None]


@functools.cache
def compiler() -> tuple[str, str]:
    """The compiler, and what tells it from others."""
    if missing := missing_tools():
        raise ToolchainMissing(
            f"the CUDA emulator builds kernels with g++ and binutils; not found: {', '.join(missing)}"
        )
    path = os.environ.get("CXX", "g++")
    version = subprocess.run([path, "-v"], capture_output=True, text=True, check=False).stderr
    if "clang" in version:
        raise ToolchainMissing(f"{path} is clang; the CUDA emulator needs GCC's -fsanitize=thread and __builtin_LINE")
    return path, version


def compile_options(options: Iterable[str]) -> list[str]:
    """g++'s form of NVRTC's options: macros, include folders, the language's version. The rest has no meaning here."""
    taken = ["-std=c++17"]
    pending = iter(options)
    for option in pending:
        name, _, value = option.partition("=")
        if option in ("-D", "-I", "-U", "--define-macro", "--include-path", "--undefine-macro"):
            taken += ["-" + option.lstrip("-")[0].upper(), next(pending)]
        elif name in ("--define-macro", "--include-path", "--undefine-macro"):
            taken.append("-" + name[2].upper() + value)
        elif option.startswith(("-D", "-I", "-U")):
            taken.append(option)
        elif name in ("-std", "--std"):
            taken[0] = f"-std={value}"
        elif name.lstrip("-") not in IGNORED_OPTIONS:
            raise EmulatorError(f"compiler option {option!r} is not one that the emulator knows of NVRTC")
    return taken


def run(command: list[str], **keywords: Any) -> str:
    environment = os.environ | {"LC_ALL": "C"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **keywords)
    if done.returncode:
        raise CompilationError(f"{' '.join(command[:1])} failed:\n{done.stderr or done.stdout}")
    return str(done.stdout)


def _build(kind: str, key: Iterable[str | bytes], make: Callable[[Path, Path], None]) -> Path:
    """The cached library of this key. Built beside its final name and renamed, so that whoever finds it finds it whole.

    Of processes that want it at once, pytest-xdist's workers among them, one builds it and the others wait.
    """
    digest = hashlib.sha256()
    for part in key:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    library = cache_folder() / f"{kind}-{digest.hexdigest()[:32]}.so"
    if library.exists():
        return library
    # A lock serves many libraries, so that the locks stay few.
    with (library.parent / f"lock-{digest.hexdigest()[:2]}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            with tempfile.TemporaryDirectory(prefix=f"{kind}-", dir=library.parent) as work:
                made = Path(work) / "library.so"
                make(Path(work), made)
                made.replace(library)
    return library


@functools.cache
def runtime_library() -> Path:
    """The scheduler and its checks: the same library under every kernel module."""
    path, version = compiler()
    sources = sorted((HERE / "runtime").glob("*.cpp"))
    headers = [*sorted((HERE / "runtime").glob("*.h")), *sorted((HERE / "include").rglob("*.h"))]
    flags = [*COMMON_FLAGS, "-std=c++17", "-O2", "-I", str(HERE / "include"), "-I", str(HERE / "runtime")]

    # As one unit: the scheduler's few instructions are inlined where threads switch, and it builds faster.
    unit = "".join(f'#include "{source.name}"\n' for source in sources)

    def make(work: Path, made: Path) -> None:
        run([path, *flags, "-shared", "-x", "c++", "-", "-o", str(made)], cwd=work, input=unit)

    key: list[str | bytes] = [version, *flags, *(file.read_bytes() for file in (*sources, *headers))]
    return _build("runtime", key, make)


def kernel_library(code: str, options: Iterable[str], name_expressions: Iterable[str], *, checked: bool) -> Path:
    """A library with one `cuda_emulator_kernel_<i>` for each name expression."""
    path, version = compiler()
    flags = [
        *KERNEL_FLAGS,
        *(CHECKED_FLAGS if checked else PLAIN_FLAGS),
        "-I",
        str(HERE / "include"),
        *compile_options(options),
    ]
    exports = [EXPORT % {"number": i, "expression": name.removeprefix("&")} for i, name in enumerate(name_expressions)]
    source = '#include "cuda_emulator.h"\n#line 1 "module.cu"\n' + code + EXPORTS + "".join(exports)
    # Line markers name this process's own files, so their text keys the cache as well as it reads.
    preprocessed = run([path, *flags, "-E", "-x", "c++", "-"], input=source)
    runtime = runtime_library()

    def make(work: Path, made: Path) -> None:
        (work / "kernels.ii").write_text(preprocessed)
        run([path, *flags, "-c", "kernels.ii", "-o", "kernels.o"], cwd=work)
        symbols = [line.split() for line in run(["readelf", "-sW", "kernels.o"], cwd=work).splitlines()]
        undefined = {fields[-1] for fields in symbols if "TLS" in fields and "UND" in fields}
        names = "\n".join(
            f"    .globl {name}\n    .hidden {name}\n    .set {name}, cuda_emulator_dynamic_shared"
            for name in sorted(undefined - {"cuda_emulator_dynamic_shared"})
        )
        (work / "shared.s").write_text(DYNAMIC_SHARED % {"names": names, "bytes": DYNAMIC_SHARED_CAPACITY})
        link = ["-shared", "-Wl,-z,defs", "-Wl,-Bsymbolic", f"-Wl,-rpath,{runtime.parent}", *QUICK_LINK]
        run([path, *link, "kernels.o", "shared.s", str(runtime), "-lm", "-lc", "-lgcc", "-o", str(made)], cwd=work)

    return _build("kernels", [version, str(runtime), *flags, preprocessed], make)
