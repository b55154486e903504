"""What ranks exchange in a training step: the gradients, and a few numbers that travel with them."""

from collections.abc import Callable

from gpu_nn.device import Array
from gpu_nn.distributed.communicator import Communicator
from gpu_nn.network import Network

# The random counters of two ranks begin so far apart that they never meet.
_RNG_DISTANCE = 1 << 48

# The latency of an all_reduce between GPUs of a host equals the transfer of some MB over NVLink.
_BUCKET_BYTES = 16 << 20


class GradientSync:
    """The all_reduce of a step: gradients, running statistics and the batch's cost, in one array.

    Where the communicator overlaps exchanges with other work, a bucket of layers is sent as soon as the backward pass
    has filled its gradients. On the CPU the array also carries whether a rank is interrupted, as `is_interrupted` says.
    """

    def __init__(self, net: Network, communicator: Communicator, is_interrupted: Callable[[], bool]):
        self._net, self._communicator, self._is_interrupted = net, communicator, is_interrupted
        self._end = net.flat.n_decayed  # gradients from here on are in buckets that were sent

    def start(self) -> None:
        """Begin a step. A step whose capture in a CUDA graph fails is left in the middle and begins anew."""
        self._end = self._net.flat.n_decayed

    def layer_done(self, begin: int) -> None:
        """The backward pass has filled flat_grads from `begin` up to what it had filled before."""
        grads, end = self._net.flat_grads, self._end
        if begin and is_bucket((end - begin) * grads.itemsize):
            bucket, self._end = grads[begin:end], begin
            self._net.kernels.host_break(lambda: self._communicator.all_reduce_async(bucket))

    def finish(self) -> None:
        """Sum what no bucket held, wait for all sums, and average the running statistics over the ranks."""
        net, end = self._net, self._end
        if self._communicator.size > 1:
            rest = (
                [net.flat.reduce_buffer]
                if end == net.flat.n_decayed
                else [net.flat.reduce_buffer[:end], net.flat.reduce_buffer[net.flat.n_decayed :]]
            )
            net.kernels.host_break(lambda: self._reduce(rest))
            if len(net.flat.running_stats):
                net.flat.running_stats *= 1 / self._communicator.size

    def _reduce(self, rest: list[Array]) -> None:
        if self._net.device.kind == "cpu":
            self._net.flat.reduce_scalars[1] = self._is_interrupted()
        if len(rest) == 1:
            self._communicator.all_reduce(*rest)
            return
        self._communicator.all_reduce_async(*rest)
        self._communicator.wait()

    @property
    def interrupted_on_any_rank(self) -> bool:
        """Whether a rank was interrupted before the latest step's sum. For the CPU: on a GPU the host would wait."""
        return bool(self._net.flat.reduce_scalars[1])


def is_bucket(n_bytes: int) -> bool:
    """Whether gradients of that size are worth an all_reduce of their own, whose latency is small beside their time."""
    return n_bytes >= _BUCKET_BYTES


def random_counters(net: Network) -> list[Array]:
    """The counters of the layers that draw random numbers."""
    return [array for name, array in net.state.items() if name.endswith(".counter")]


def offset_rng_by_rank(net: Network, rank: int) -> None:
    """Let each rank draw its own dropout masks and noise; rank 0 draws those of a single process."""
    for counter in random_counters(net):
        counter[...] = counter % _RNG_DISTANCE + _RNG_DISTANCE * rank
    net.plan.invalidate()


def broadcast_parameters(net: Network, communicator: Communicator) -> None:
    """Bring what rank 0 has learned to all ranks: callbacks of rank 0 may have restored an earlier epoch."""
    for array in net.inference_state.values():
        communicator.broadcast(array)
