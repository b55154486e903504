"""The two implementations of the kernels are interchangeable, and the CUDA one can be imported anywhere."""

import inspect
import subprocess
import sys

import pytest

from gpu_nn.kernels import cuda_kernels, numpy_kernels
from gpu_nn.kernels.operations import OPERATIONS, functions


def test_both_packages_export_the_operations_and_not_their_modules():
    for package in (numpy_kernels, cuda_kernels):
        for name, function in functions(package.__name__).items():
            assert inspect.isfunction(function)
            assert getattr(package, name) is function


@pytest.mark.parametrize("name", [name for names in OPERATIONS.values() for name in names])
def test_parameters_have_the_same_names_kinds_and_defaults(name):
    def parameters(module):
        function = getattr(module, name)
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert parameters(numpy_kernels) == parameters(cuda_kernels)
    returned = inspect.signature(getattr(cuda_kernels, name)).return_annotation
    assert returned is None or name in ("cuda_graph", "relu_mask_bytes")


def test_importing_the_cuda_kernels_needs_neither_cupy_nor_a_compiler():
    program = (
        "import sys; sys.modules['cupy'] = None\n"
        "from gpu_nn.kernels import cuda_kernels\n"
        "from gpu_nn.kernels.cuda_kernels import sources\n"
        "assert sources.source.cache_info().currsize == 0, 'a source was read at import'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
