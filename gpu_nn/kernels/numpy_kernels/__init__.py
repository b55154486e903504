"""The kernels on NumPy. Formulas in blocks that stay in the cache; matrix products and their threads belong to BLAS."""

from gpu_nn.kernels.operations import functions

globals().update(functions(__name__))
