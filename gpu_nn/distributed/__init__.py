"""Training by several processes, one a GPU or, on CPUs, one a processor, which add up their gradients.

A launcher starts the processes, `mpiexec -n 4 gpu-nn train --distributed …` or `torchrun --nproc-per-node 4 --no-python
gpu-nn train --distributed …`. A program that is started in the same way does

    communicator, device = gpu_nn.distributed.init_process_group()
    with communicator:
        net = gpu_nn.Network([784, 256, 10], device=device)
        gpu_nn.Trainer(net, gpu_nn.Adam(), batch_size=512, communicator=communicator).fit(x, y)

README.md in this folder says what is equal on all ranks, what happens to them when one fails, and how Ray and Dask
start them.
"""

from gpu_nn import __version__
from gpu_nn.device import Device, cuda_unavailable_reason, cupy_module, resolve_device
from gpu_nn.distributed import environment
from gpu_nn.distributed.communicator import SINGLE_PROCESS, Communicator, RankFailed, is_raised_on_all_ranks
from gpu_nn.distributed.environment import EXIT_FAILURE, exit_silently, rank_and_world_size
from gpu_nn.errors import DeviceError

__all__ = [
    "EXIT_FAILURE",
    "SINGLE_PROCESS",
    "Communicator",
    "RankFailed",
    "exit_silently",
    "init_process_group",
    "is_raised_on_all_ranks",
    "rank_and_world_size",
]


def init_process_group(device: str = "auto") -> tuple[Communicator, Device]:
    """The communicator of the processes that a launcher started, and the device of this one.

    Ranks exchange arrays over the group of torch.distributed that the program made, if it made one; else by MPI, where
    MPI started them; else over a Gloo group that they make where RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say. On
    GPUs they add up arrays by NCCL.

    device: "auto" gives each rank a GPU of its host, or the CPU where there is none; "cuda", a GPU or an error; "cpu".

    Raises ValueError where no launcher started this process or its environment is wrong, DeviceError where PyTorch,
    MPI, NCCL or a GPU is missing or the ranks do not find each other.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={device!r}; expected auto, cpu or cuda: each rank takes the GPU of its number")
    on_gpu = device == "cuda" or (device == "auto" and not cuda_unavailable_reason())
    communicator = _host_communicator()
    try:
        communicator.assert_same_on_all_ranks({"gpu_nn": __version__, "a GPU": on_gpu})
        if not on_gpu:
            return communicator, resolve_device("cpu")
        from gpu_nn.distributed import nccl

        local_rank = communicator.local_rank()
        with communicator.raise_on_all_ranks():
            gpu = _gpu_of(local_rank)
            nccl.module()
        return nccl.NcclCommunicator(gpu, communicator), gpu
    except Exception as error:  # any: the other ranks would wait for this one
        communicator.abort(error)
        raise


def _host_communicator() -> Communicator:
    """The communicator for arrays on the host."""
    from gpu_nn.distributed import gloo, mpi

    if gloo.is_initialized():
        return gloo.from_default_group()
    if environment.is_started_by_mpi():
        try:
            return mpi.MpiCommunicator()
        except DeviceError:
            # Packages may differ between hosts, but not on one: one rank of each host says what is missing.
            if environment.local_rank_of_mpi():
                exit_silently(EXIT_FAILURE)
            raise
    if environment.has_rendezvous_variables():
        return gloo.from_environment(environment.rendezvous_address())
    raise ValueError("no launcher started this process: mpiexec -n 4 gpu-nn train --distributed starts four")


def _gpu_of(local_rank: int) -> Device:
    resolve_device("cuda")  # raises where there is no GPU
    count = cupy_module().cuda.runtime.getDeviceCount()
    if local_rank >= count:
        raise ValueError(f"{local_rank + 1} or more ranks on a host with {count} GPUs; start one for each")
    return resolve_device(f"cuda:{local_rank}")
