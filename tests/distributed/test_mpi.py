"""Where MPI is missing the extra is named; what its ranks do is in test_training.py."""

import builtins
import sys

import pytest

from gpu_nn import distributed
from gpu_nn.errors import DeviceError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'mpi4py'"), "No module named 'mpi4py'"),
        (ImportError("libmpi.so.12: cannot open shared object file\nmore"), "libmpi.so.12: cannot open shared object"),
    ],
)
def test_without_mpi_the_extra_is_named(monkeypatch, error, reason):
    original = builtins.__import__

    def failing(name, *arguments, **options):
        if name == "mpi4py":
            raise error
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", failing)
    monkeypatch.delitem(sys.modules, "mpi4py", raising=False)
    monkeypatch.setenv("PMI_RANK", "0")  # as mpiexec sets it
    with pytest.raises(DeviceError) as raised:
        distributed.connect("cpu")
    assert reason in str(raised.value)
    assert str(raised.value).endswith("pip install 'gpu_nn[mpi]'")
    assert "more" not in str(raised.value)


def test_a_device_that_is_no_choice_for_ranks_is_named():
    with pytest.raises(ValueError, match="device='cuda:1'; expected auto, cpu or cuda: each rank takes the GPU of its"):
        distributed.connect("cuda:1")
