"""Training by several processes, one a GPU or, on the CPU, one a socket: gradients are added up over all of them.

The field's own launchers start them:

    mpiexec -n 4 gpu-nn train --distributed --data x.npy --target y.npy     # one host or many, CPU or GPUs
    torchrun --nproc-per-node 4 --no-python gpu-nn train --distributed …    # the same

and in a program of one's own, started in the same way,

    ranks, device = gpu_nn.distributed.connect()
    with gpu_nn.distributed.together(ranks):
        net = gpu_nn.Network([784, 256, 10], device=device)
        gpu_nn.Trainer(net, gpu_nn.Adam(), batch_size=512, ranks=ranks).fit(x, y)

Ray and Dask start processes of their own, in which the environment has to say what torchrun's says:

    import os, gpu_nn.distributed

    def train(rank, size, host, x, y, path):
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": "0"}
        os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": "29400"}  # the host of rank 0, and a free port of it
        ranks, device = gpu_nn.distributed.connect()
        with gpu_nn.distributed.together(ranks):
            net = gpu_nn.Network([x.shape[1], 256, 10], device=device)
            gpu_nn.Trainer(net, gpu_nn.Adam(), batch_size=512, ranks=ranks).fit(x, y)
            if rank == 0:
                gpu_nn.save(net, path)

With Ray, which gives each process a GPU that it sees as its first (num_gpus=0 trains on CPUs):

    import ray

    @ray.remote(num_gpus=1)
    class Rank:
        def host(self):
            return ray.util.get_node_ip_address()

        def train(self, *given):
            train(*given)

    processes = [Rank.remote() for _ in range(4)]
    host = ray.get(processes[0].host.remote())
    ray.get([process.train.remote(rank, 4, host, x, y, path) for rank, process in enumerate(processes)])

With Dask, on workers that each have a GPU of their own, as dask-cuda starts them, or on the CPU; the scheduler's
allowed-failures is 0 (DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES), so that a rank's end is told and not tried again:

    from urllib.parse import urlsplit
    from dask.distributed import Client

    client = Client("tcp://scheduler:8786")
    workers = sorted(client.nthreads())
    size, host = len(workers), urlsplit(workers[0]).hostname
    given = client.scatter([x, y], broadcast=True)
    client.gather([
        client.submit(train, rank, size, host, *given, path, workers=[worker], pure=False)
        for rank, worker in enumerate(workers)
    ])

Ranks started by MPI meet by MPI. Others meet at MASTER_ADDR and MASTER_PORT or, where torchrun's agent listens there,
at the port after it; GPU_NN_PORT chooses another one. When a rank fails or dies all end within seconds, by the launcher
or, where they met at a port, by themselves. On the CPU sums go by MPI or through rank 0, on GPUs by NCCL: gradients and
cost at once or, of wide layers, as soon as they are there, while the layers before go backward.

Every rank is given the same data and the same arguments and takes its part of each batch, so batch size, loss and
metrics mean what they mean in one process. Of a stream each of R ranks reads, and has in memory, its own share, 1/R of
every window or of what is only evaluated; parameters have the bits that one process learns (see
`gpu_nn.training.window_order`). Where R does not divide 64, another rank reads up to two 64ths of them, too; and
unshuffled, rows of others that lie between short stretches of its own are read and dropped. A row group of a Parquet
file is decoded as a whole by each rank that has rows of it: ranks share the decoding where groups are smaller than 1/R
of a window, which is 64 MiB of float32 inputs unless `window_rows` says more. What is wrong with a row of one rank,
such as a NaN, is raised on all. The command reads a stream as a whole on every rank once, before, for its classes and
the scale of its inputs.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from gpu_nn.device import Device, cupy_module, resolve_device, why_no_cuda
from gpu_nn.distributed import launcher, mpi, nccl, tcp
from gpu_nn.distributed.launcher import launched
from gpu_nn.errors import DeviceError
from gpu_nn.training.ranks import ALONE, RankFailed, Ranks

__all__ = ["ALONE", "RankFailed", "Ranks", "connect", "end_silently", "launched", "together"]

_FAILED = 1
_PASSED_ON = 0.5  # seconds


def connect(device: str = "auto") -> tuple[Ranks, Device]:
    """The ranks that a launcher started, this process among them, and the device of this one.

    device: "auto" gives each rank a GPU of its host, or the CPU where there is none; "cuda", a GPU or an error; "cpu".

    Raises ValueError where no launcher started this process, DeviceError where MPI, NCCL or a GPU is missing or the
    ranks do not meet. What fails after they met is raised by rank 0; the others exit with code 1.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={device!r}; expected auto, cpu or cuda: each rank takes the GPU of its number")
    on_gpu = device == "cuda" or (device == "auto" and not why_no_cuda())
    ranks = _met()
    with _ending_together(ranks):
        ranks.check_equal({"a GPU": on_gpu})
        if not on_gpu:
            return ranks, resolve_device("cpu")
        local_rank = ranks.local_rank() if isinstance(ranks, mpi.MpiRanks) else launcher.local_rank()
        with ranks.agreed():
            own = _own_gpu(local_rank)
            nccl.module()
        return nccl.NcclRanks(own, ranks), own


def _met() -> Ranks:
    if launcher.is_mpi():
        try:
            return mpi.MpiRanks()
        except DeviceError:
            # What is installed may differ between hosts, but not on one.
            if launcher.local_rank_of_mpi():
                end_silently(_FAILED)
            raise
    if launcher.says_where_to_meet():
        host, port, chosen_by = launcher.meeting_place()
        cure = f"choose another port by {chosen_by}"
        return tcp.TcpRanks(*launcher.rank_and_size(), host, port, cure, launcher.job())
    raise ValueError("no launcher started this process: mpiexec -n 4 gpu-nn train --distributed starts four")


def _own_gpu(local_rank: int) -> Device:
    resolve_device("cuda")  # an error with its cure where there is none
    count = cupy_module().cuda.runtime.getDeviceCount()
    if local_rank >= count:
        raise ValueError(f"{local_rank + 1} or more ranks on a host with {count} GPUs; start one for each")
    return resolve_device(f"cuda:{local_rank}")


@contextmanager
def together(ranks: Ranks) -> Iterator[None]:
    """Ends all ranks when this one fails, with a line that says which it was: the others would wait for it for ever.

    What all of them raise is left to rank 0 to tell; the others exit with code 1. Behind the block there are no sums.
    """
    with _ending_together(ranks):
        try:
            yield
        except BaseException as error:
            # An exception ends all, outside; an interrupt or an exit is this rank's own.
            if not isinstance(error, Exception):
                ranks.leave()
            raise
        ranks.leave()


@contextmanager
def _ending_together(ranks: Ranks) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if ranks.size == 1:
            raise
        if error is ranks.failed_alike:
            ranks.leave()
            if ranks.rank == 0:
                raise
            end_silently(_FAILED)
        try:
            print(f"rank {ranks.rank} of {ranks.size} failed: {error}; all ranks end", file=sys.stderr, flush=True)
            sys.stdout.flush()  # what ends at once would not
            # A launcher that is told to end all at once may drop what it has not passed on.
            time.sleep(_PASSED_ON)
        finally:  # be nobody there to read it
            ranks.abort(_FAILED)
        raise SystemExit(_FAILED) from None


def end_silently(code: int) -> NoReturn:
    """Ends this rank, after rank 0 had time to say why: a launcher may end all when the first has ended."""
    time.sleep(_PASSED_ON)
    raise SystemExit(code) from None
