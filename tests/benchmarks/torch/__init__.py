"""Tests of the benchmarks that need PyTorch, which is no dependency of the tests: without it they are skipped."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'gpu_nn[torch]'")
torch.set_num_threads(1)  # tensors here are small, and other test processes have the other cores
