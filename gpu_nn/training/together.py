"""What a trainer does where a batch has parts, and where several ranks have them."""

import zlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_nn.device import Array
from gpu_nn.network import Network
from gpu_nn.training import resume as resuming
from gpu_nn.training.ranks import share

if TYPE_CHECKING:
    from gpu_nn.training.trainer import Trainer

# Counters of random draws begin so far apart on two ranks that they never meet.
_APART = 1 << 48

# A sum's latency between GPUs of a host is that of some MB by NVLink.
_BUCKET_BYTES = 16 << 20


def check(trainer: "Trainer", epochs: int) -> None:
    """Raises ValueError, on all ranks, where they differ in settings, data, parameters, the order of rows to come or
    the number of epochs, or have too few rows."""
    settings = {**_flat("", resuming.settings(trainer)), **_flat("", trainer.data), "parts": trainer.parts}
    for name, array in trainer.net.inference_state.items():
        learned = trainer.net.device.to_host(array)
        settings[f"initial {name}"] = zlib.crc32(np.ascontiguousarray(learned).data)
    settings["last epoch"] = trainer.position.first_epoch + int(epochs)
    if trainer.shuffle:
        settings["state of the random numbers"] = zlib.crc32(str(trainer.position.random).encode())
    trainer.ranks.check_equal(settings)
    with trainer.ranks.agreed():
        if trainer.n_rows < trainer.ranks.size:
            few = f"x has {trainer.n_rows} rows, but {trainer.ranks.size} ranks"
            raise ValueError(f"{few}; expected at least a row for each")


def draw_apart(trainer: "Trainer") -> None:
    """Give the rank draws of its own for dropout and noise; rank 0 draws what one process would."""
    for counter in _counters(trainer.net):
        counter[...] = counter % _APART + _APART * trainer.ranks.rank
    trainer.net.plan.invalidate()


def _counters(net: Network) -> list[Array]:
    """Those of the passes of each layer that draws."""
    return [array for name, array in net.state.items() if name.endswith(".counter")]


def any_of(trainer: "Trainer", flag: bool) -> bool:
    """Whether it is set on any rank."""
    if trainer.ranks.size == 1:
        return flag
    flags = np.array([int(flag)])
    trainer.ranks.sum(flags)
    return bool(flags[0])


def follow_rank_0(trainer: "Trainer") -> None:
    """Bring what was learned to where rank 0 has it, whose callbacks may have restored an earlier epoch's."""
    for array in trainer.net.inference_state.values():
        if trainer.ranks.rank:
            array.fill(0)
        trainer.ranks.sum(array)


def work_in_parts(trainer: "Trainer", size: int) -> Callable[[], None]:
    """The work of the device in a step on `size` rows of all ranks, of which this one computes its parts.

    Gradients of parts are added in pairs, then the sums of pairs, and so on, which goes on over the ranks. With them go
    the batch's cost, running figures, which become the ranks' mean, and, on the CPU, whether a rank is interrupted: a
    step needs one sum, or one for each bucket.
    """
    net, optimizer, kernels, ranks = trainer.net, trainer.optimizer, trainer.net.kernels, trainer.ranks
    own = trainer.parts // ranks.size
    edges = [share(size, i, trainer.parts).start for i in range(own * ranks.rank, own * (ranks.rank + 1) + 1)]
    parts = [_part(trainer, first, last, size) for first, last in pairwise(edges)]
    waiting = [net.device.empty(net.flat_grads.shape, net.flat_grads.dtype) for _ in range((own - 1).bit_length())]
    row_losses = net.device.empty((max(edges[-1] - edges[0], 1),), net.dtype)[: edges[-1] - edges[0]]
    losses, counters, cost = trainer.steps.losses, trainer.steps.counters, net.flat.reduce_scalars[:1]
    # Of several parts gradients are ready when the last of them is through.
    by_buckets = own == 1 and ranks.overlapping

    def work() -> None:
        sums = _Sums(trainer)
        done: list[Array] = []
        rows: Array = row_losses
        for i, part in enumerate(parts, start=1):
            rows = part(sums.filled if by_buckets else None)
            if own > 1:
                at = edges[i - 1] - edges[0]
                row_losses[at : at + len(rows)] = rows
            grads, pairs = net.flat_grads, i
            while pairs % 2 == 0:
                grads += done.pop()
                pairs //= 2
            if i < own:
                place = waiting[len(done)]
                place[...] = grads
                done.append(place)
        while done:
            net.flat_grads += done.pop()
        kernels.record_loss(rows if own == 1 else row_losses, cost, None, net.loss_scale)
        sums.add()
        if ranks.size > 1 and len(net.flat.running_stats):
            net.flat.running_stats *= 1 / ranks.size
        kernels.record_loss(cost, losses, counters, rows=size)
        optimizer.update(net)

    return work


def interrupted_anywhere(trainer: "Trainer") -> bool:
    """Whether a rank was interrupted before the latest step's sum. For the CPU: on a GPU to ask is to wait."""
    return bool(trainer.net.flat.reduce_scalars[1])


class _Sums:
    """The sum over the ranks of a step's gradients and of what goes with them, in one or, where that pays, by buckets
    of layers, each while the layers before it still go backward. For one step: a step that cannot be captured is left
    in the middle, and begins anew."""

    def __init__(self, trainer: "Trainer"):
        self._trainer, self._ranks, self._net = trainer, trainer.ranks, trainer.net
        self._end = self._net.flat.n_decayed  # of what is not being summed yet

    def filled(self, begin: int) -> None:
        """The gradients from there on, of those that decay, are ready."""
        grads, end = self._net.flat_grads, self._end
        if begin and is_bucket((end - begin) * grads.itemsize):
            bucket, self._end = grads[begin:end], begin
            self._net.kernels.host_break(lambda: self._ranks.begin_sum(bucket))

    def add(self) -> None:
        """All the others, too."""
        net, end = self._net, self._end
        if self._ranks.size > 1:
            rest = (
                [net.flat.reduce_buffer]
                if end == net.flat.n_decayed
                else [net.flat.reduce_buffer[:end], net.flat.reduce_buffer[net.flat.n_decayed :]]
            )
            net.kernels.host_break(lambda: self._add(rest))

    def _add(self, rest: list[Array]) -> None:
        if self._net.device.kind == "cpu":
            self._net.flat.reduce_scalars[1] = self._trainer.interrupting
        if len(rest) == 1:
            self._ranks.sum(*rest)
            return
        self._ranks.begin_sum(*rest)
        self._ranks.end_sums()


def is_bucket(n_bytes: int) -> bool:
    """Whether gradients of so many bytes are worth a sum of their own: next to their time its latency is little."""
    return n_bytes >= _BUCKET_BYTES


def _part(trainer: "Trainer", first: int, last: int, size: int) -> Callable[[Callable[[int], None] | None], Array]:
    """Forward and backward over rows first … last-1 of a batch of `size`; returns the rows' costs."""
    net, kernels = trainer.net, trainer.net.kernels
    batch, weight = trainer.steps.batch_of(last - first)
    options = {"row_scale": weight, "scale": 1 / size, **trainer.options}
    order, begins = trainer.steps.order[first:], trainer.steps.counters[:1]
    x, y = batch[0][1], batch[1][1]
    counters = _counters(net)

    def part(filled: Callable[[int], None] | None) -> Array:
        if len(x):
            for source, out in batch:
                kernels.gather(source, order, out, begins)
        else:
            # A pass, too: a rank that resumes from rank 0's counters goes on with its own.
            for counter in counters:
                kernels.increment(counter)
        return net.train_step(x, y, net.n_preprocessing, filled=filled, **options)

    return part


def _flat(prefix: str, told: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in told.items():
        if isinstance(value, Mapping):
            flat |= _flat(f"{prefix}{name} ", value)
        else:
            flat[f"{prefix}{name}"] = value
    return flat
