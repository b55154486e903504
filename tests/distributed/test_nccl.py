"""Ranks on GPUs that cannot meet say why; that they do meet is for machines that have them."""

import socket
from types import SimpleNamespace

import pytest

from gpu_nn import device, distributed
from gpu_nn.device import CPU
from gpu_nn.distributed import nccl
from gpu_nn.errors import DeviceError


@pytest.fixture
def rank(monkeypatch):
    """A rank that a launcher such as torchrun started, with this environment, where CuPy's ranks do this to meet."""

    def rank(meet=lambda *_, **__: pytest.fail("met"), **environment):
        settings = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", **environment}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(nccl, "_distributed", lambda: SimpleNamespace(init_process_group=meet))
        return nccl.NcclRanks(CPU, None)

    return rank


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_port_in_use_is_told_at_once_with_the_variable_to_change(rank):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = rf"rank 0 cannot listen at 127.0.0.1:{port}: Address already in use; choose another MASTER_PORT"
        with pytest.raises(DeviceError, match=said):
            rank(MASTER_PORT=str(port))


def test_a_port_that_is_free_is_handed_on(rank):
    port, met = free_port(), []
    ranks = rank(lambda *arguments, **options: met.append((arguments, options)), MASTER_PORT=str(port))
    assert met == [((2, 0), {"backend": "nccl", "host": "127.0.0.1", "port": port, "use_mpi": False})]
    assert (ranks.rank, ranks.size) == (0, 2)


def test_ranks_that_do_not_meet_say_who_and_where(rank):
    def alone(*_, **__):
        raise RuntimeError("timed out")

    port = free_port()
    with pytest.raises(DeviceError, match=f"rank 1 of 2 did not meet the others at 127.0.0.1:{port}: timed out"):
        rank(alone, RANK="1", MASTER_PORT=str(port))


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000; expected a port from 1 to 65535"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT=0; expected a port from 1 to 65535"),
        ({"MASTER_PORT": "http"}, "the environment has MASTER_PORT='http'; expected a whole number"),
        ({"RANK": "2"}, "RANK=2 with WORLD_SIZE=2; expected a rank from 0 to 1"),
        ({"WORLD_SIZE": "-1"}, "the environment has WORLD_SIZE='-1'; expected a whole number"),
    ],
)
def test_an_environment_that_cannot_be_is_named(rank, environment, said):
    with pytest.raises(ValueError, match=said):
        rank(**environment)


@pytest.mark.parametrize(
    "cuda", [SimpleNamespace(), SimpleNamespace(nccl=SimpleNamespace(available=False))], ids=["absent", "unavailable"]
)
def test_without_nccl_the_extra_is_named(monkeypatch, cuda):
    monkeypatch.setattr(device, "stand_in", SimpleNamespace(cuda=cuda))
    with pytest.raises(DeviceError, match=r"pip install 'gpu_nn\[nccl12\]' beside cuda12x, 'gpu_nn\[nccl13\]'"):
        nccl._distributed()


def test_ranks_of_torchrun_on_the_cpu_are_told_of_mpi(monkeypatch):
    for name in ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MPI_LOCALRANKID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with pytest.raises(ValueError, match=r"start them by mpiexec; pip install 'gpu_nn\[mpi\]'"):
        distributed.connect("cpu")
