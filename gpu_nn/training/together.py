"""What a trainer does where a batch has parts, and where several ranks have them."""

import zlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_nn.device import Array
from gpu_nn.training import resume as resuming

if TYPE_CHECKING:
    from gpu_nn.training.trainer import Trainer

# Counters of random draws begin so far apart on two ranks that they never meet.
_APART = 1 << 48


def check(trainer: "Trainer") -> None:
    """Raises ValueError, on all ranks, where they differ in settings, data or parameters, or have too few rows."""
    settings = {**_flat("", resuming.settings(trainer)), **_flat("", trainer.data), "parts": trainer.parts}
    parameters = trainer.net.device.to_host(trainer.net.flat_parameters)
    settings["initial parameters"] = zlib.crc32(np.ascontiguousarray(parameters).data)
    trainer.ranks.check_equal(settings)
    with trainer.ranks.agreed():
        if trainer.n_rows < trainer.ranks.size:
            few = f"x has {trainer.n_rows} rows, but {trainer.ranks.size} ranks"
            raise ValueError(f"{few}; expected at least a row for each")


def draw_apart(trainer: "Trainer") -> None:
    """Give the rank draws of its own for dropout and noise; rank 0 draws what one process would."""
    for name, counter in trainer.net.state.items():
        if name.endswith(".counter"):
            counter[...] = counter % _APART + _APART * trainer.ranks.rank
    trainer.net.rebind()


def any_of(trainer: "Trainer", flag: bool) -> bool:
    """Whether it is set on any rank."""
    if trainer.ranks.size == 1:
        return flag
    flags = np.array([int(flag)])
    trainer.ranks.sum(flags)
    return bool(flags[0])


def follow_rank_0(trainer: "Trainer") -> None:
    """Bring what was learned to where rank 0 has it, whose callbacks may have restored an earlier epoch's."""
    for array in trainer.net.learned.values():
        if trainer.ranks.rank:
            array.fill(0)
        trainer.ranks.sum(array)


def work_in_parts(trainer: "Trainer", size: int) -> Callable[[], None]:
    """The work of the device in a step on `size` rows of all ranks, of which this one computes its parts.

    Gradients of parts are added in pairs, then the sums of pairs, and so on, which goes on over the ranks.
    """
    net, optimizer, kernels, ranks = trainer.net, trainer.optimizer, trainer.net.kernels, trainer.ranks
    own = trainer.parts // ranks.size
    edges = [size * i // trainer.parts for i in range(own * ranks.rank, own * (ranks.rank + 1) + 1)]
    parts = [_part(trainer, first, last, size) for first, last in pairwise(edges)]
    waiting = [net.device.empty(net.flat_grads.shape, net.flat_grads.dtype) for _ in range((own - 1).bit_length())]
    n_rows = edges[-1] - edges[0]
    row_losses = net.device.empty((max(n_rows, 1),), trainer.losses.dtype)[:n_rows]

    def work() -> None:
        done: list[Array] = []
        for i, part in enumerate(parts, start=1):
            at = edges[i - 1] - edges[0]
            rows = part()
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
        ranks.sum(net.flat_grads)
        slot = trainer.losses[trainer.position.unread :][:1]
        kernels.record_loss(row_losses, trainer.losses, trainer.counters, net.loss_scale)
        ranks.sum(slot)
        trainer.counters[:1] += size - n_rows
        optimizer.update(net)

    return work


def _part(trainer: "Trainer", first: int, last: int, size: int) -> Callable[[], Array]:
    """Forward and backward over rows first … last-1 of a batch of `size`; returns the rows' costs."""
    net, kernels = trainer.net, trainer.net.kernels
    batch, weight = trainer.batch_of(last - first)
    options = {"row_scale": weight, "scale": 1 / size, **trainer.options}
    order, begins = trainer.order[first:], trainer.counters[:1]
    x, y = batch[0][1], batch[1][1]

    def part() -> Array:
        if len(x):
            for source, out in batch:
                kernels.gather(source, order, out, begins)
        return net.train_step(x, y, net.n_fixed, **options)

    return part


def _flat(prefix: str, told: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in told.items():
        if isinstance(value, Mapping):
            flat |= _flat(f"{prefix}{name} ", value)
        else:
            flat[f"{prefix}{name}"] = value
    return flat
