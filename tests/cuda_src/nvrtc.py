"""NVRTC without a GPU: compiles CUDA C++ for any architecture and returns what ptxas reports of each kernel.

The libraries and headers are those of the wheels nvidia-cuda-nvrtc-cu12 and nvidia-cuda-runtime-cu12; no driver is
needed.
"""

import ctypes
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_WHEELS = "pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12"

_ENTRY = re.compile(r"Compiling entry function '(?P<name>\w+)'.*?(?=Compiling entry function|\Z)", re.DOTALL)
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


class CompilationError(RuntimeError):
    """NVRTC rejected a source; the message is its log."""


@dataclass(frozen=True)
class Resources:
    """The resources of one instantiation on one architecture: registers of a thread, static shared memory of a block in
    bytes, and of local memory the stack frame and the bytes that registers are spilled to and read from."""

    registers: int
    shared: int
    stack: int
    spills: int


def _in_wheels(pattern: str) -> Iterator[Path]:
    try:
        import nvidia
    except ImportError:
        return
    for folder in nvidia.__path__:
        yield from sorted(Path(folder).glob(pattern))


@cache
def include_folder() -> Path:
    """Where cuda_fp16.h and cuda_bf16.h are."""
    for header in _in_wheels("*/include/cuda_fp16.h"):
        return header.parent
    raise FileNotFoundError(f"CUDA's headers are not installed: {_WHEELS}")


@cache
def _library() -> ctypes.CDLL:
    for path in _in_wheels("*/lib/libnvrtc.so.*"):
        return ctypes.CDLL(str(path))
    raise FileNotFoundError(f"NVRTC is not installed: {_WHEELS}")


@cache
def version() -> str:
    """Of NVRTC, as "12.9"."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def compile_kernels(
    code: str, names: Sequence[str], architecture: int, options: Sequence[str] = ()
) -> dict[str, Resources]:
    """The resources of each name expression of `code`, compiled for sm_<architecture>.

    Raises CompilationError. Other threads run meanwhile, since ctypes releases the GIL.
    """
    flags = (*options, f"-arch=sm_{architecture}", "--ptxas-options=-v")
    with _compiled(code, names, flags) as program:
        log = _text(program, "ProgramLog")
        found = {match["name"]: _resources(match[0]) for match in _ENTRY.finditer(log)}
        return {name: found[_lowered(program, name)] for name in names}


def ptx(code: str, name: str, architecture: int, options: Sequence[str] = ()) -> str:
    """The PTX of one name expression."""
    with _compiled(code, [name], (*options, f"-arch=compute_{architecture}")) as program:
        return _text(program, "PTX")


@contextmanager
def _compiled(code: str, names: Sequence[str], flags: Sequence[str]) -> Iterator[ctypes.c_void_p]:
    library, program = _library(), ctypes.c_void_p()
    flags = [*flags, f"-I{include_folder()}"]
    _check(library.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"module.cu", 0, None, None))
    try:
        for name in names:
            _check(library.nvrtcAddNameExpression(program, name.encode()))
        encoded = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
        if library.nvrtcCompileProgram(program, len(flags), encoded):
            raise CompilationError(f"{', '.join(flags)}:\n{_text(program, 'ProgramLog')}")
        yield program
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _resources(log: str) -> Resources:
    registers, spills, shared = _REGISTERS.search(log), _SPILLS.search(log), _SHARED.search(log)
    if registers is None or spills is None:
        raise CompilationError(f"ptxas did not report the kernel's resources:\n{log}")
    return Resources(
        registers=int(registers[1]),
        shared=int(shared[1]) if shared else 0,
        stack=int(spills[1]),
        spills=int(spills[2]) + int(spills[3]),
    )


def _lowered(program: ctypes.c_void_p, name: str) -> str:
    lowered = ctypes.c_char_p()
    _check(_library().nvrtcGetLoweredName(program, name.encode(), ctypes.byref(lowered)))
    assert lowered.value is not None
    return lowered.value.decode()


def _text(program: ctypes.c_void_p, what: str) -> str:
    library, size = _library(), ctypes.c_size_t()
    _check(getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(library, f"nvrtcGet{what}")(program, text))
    return text.value.decode()


def _check(status: int) -> None:
    if status:
        describe = _library().nvrtcGetErrorString
        describe.restype = ctypes.c_char_p
        raise CompilationError(f"NVRTC: {describe(status).decode()}")
