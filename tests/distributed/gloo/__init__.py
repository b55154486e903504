"""Ranks that MPI did not start need PyTorch, which is no dependency of the tests: without it these skip."""

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'gpu_nn[ranks]'")
