"""The kernels on a GPU through CuPy: one file an operation, each beside its source in cuda_src."""

from gpu_nn.kernels.operations import functions

globals().update(functions(__name__))
