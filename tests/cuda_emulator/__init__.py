"""Runs CUDA C++ kernels on the CPU, from their unmodified source, behind the face of ``cupy.RawModule``.

    from tests.cuda_emulator import EmulatorError, RawModule, require

    require()  # skips where there is no g++; fails instead where CI=true
    module = RawModule(code=source, options=("-Icuda_src",), name_expressions=("scale<float>",))
    kernel = module.get_function("scale<float>")
    kernel((blocks,), (256,), (x, y, np.int64(x.size), np.float32(2)), shared_mem=0)

Arrays are NumPy's or ``cupy_proxy``'s: float16 for ``__half``; uint16 or ml_dtypes' bfloat16 for ``__nv_bfloat16``; the
component's dtype for a vector (float32 for ``float4*``); any for ``void*`` and ``char*``. The library is built by g++
on first use and kept in ``$CUDA_EMULATOR_CACHE``, by default in the user's cache folder. A launch has ended when the
call returns.

``RawModule(mode=…)``, else ``$CUDA_EMULATOR_MODE``:

- ``plain``: optimised, for results. Misaligned vectors are reported here too.
- ``address``: every access to memory is checked against the arrays passed, shared memory and the thread's own stack,
  and undefined behaviour is reported: an index beyond an array's type, integers that overflow.
- ``thread``: the same, and two threads' accesses to one place that no barrier orders are reported with both lines.

``RawModule(order=…)``, else ``$CUDA_EMULATOR_ORDER``: lanes, warps and blocks run ``forward``, in ``reverse``, or
``both``, which runs the kernel twice on the same input and compares all bits of the output. A selection of tests runs
in a mode by

    python -m tests.cuda_emulator thread -- tests/kernels

What is wrong becomes an ``EmulatorError`` that names the kernel, block, thread and source lines: a divergent barrier;
a wrong warp mask (its caller left out, an exited or unmasked lane read, lanes meeting with other masks or at other
calls); a deadlock, or no end in ``module.SECONDS``; a segmentation fault; an argument of another dtype, width or
layout, or read-only where the kernel may write; a launch beyond the device's limits. Shared memory starts as 0xff
bytes, NaN in every floating type, so that reading it too early shows.

How: a CUDA thread is a context with its own stack; all run on one thread of the operating system, each until it must
wait. ``__shared__`` is ``thread_local``, dynamic shared memory an undefined symbol that the link resolves. g++'s
-fsanitize=thread and -fsanitize=undefined plant the checks, and the runtime here answers them instead of the compiler's
own libraries: it knows CUDA's threads, barriers and arrays, raises instead of aborting, and needs no second process.

Not emulated: PTX in ``asm``, clusters and cooperative launches (``__CUDA_ARCH__`` is 800), textures, ``-ftz``, the
limits of registers, static shared memory and ``__launch_bounds__``, the last bits of CUDA's own ``expf`` and its like,
and blocks that wait for each other, since they run one after another. Not seen: a race whose second access this input
does not reach; a step from one ``__shared__`` array into the next by pointer arithmetic. Seen as a race: threads of one
block whose order rests on atomics alone.
"""

from .errors import CompilationError, EmulatorError, ToolchainMissing
from .module import MODES, ORDERS, RawKernel, RawModule
from .requirement import require

__all__ = [
    "MODES",
    "ORDERS",
    "CompilationError",
    "EmulatorError",
    "RawKernel",
    "RawModule",
    "ToolchainMissing",
    "require",
]
