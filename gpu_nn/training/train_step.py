"""The work of the device in a training step: gather a batch, forward, cost, backward, sum over ranks, update."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from gpu_nn.device import Array
from gpu_nn.distributed.communicator import Communicator, shard
from gpu_nn.network import Network
from gpu_nn.optimizers import Optimizer
from gpu_nn.training.gradient_sync import GradientSync, random_counters
from gpu_nn.training.loader import Loader
from gpu_nn.training.pending_losses import PendingLosses
from gpu_nn.validation import is_int


class TrainStep:
    """Calling it with a number of rows makes an optimizer step on the next batch of the epoch's order.

    The device's work is one CUDA graph for each batch size, where the device has graphs. What changes from step to step
    therefore lies in the device's memory. cost_options: of the kernel `softmax_cross_entropy`.  micro_batches: of a
    batch over all ranks.  is_interrupted: as of `GradientSync`.

    order: (loader.rows,) of int64: the rows of a window in the order of an epoch.
    """

    def __init__(
        self,
        net: Network,
        optimizer: Optimizer,
        loader: Loader,
        losses: PendingLosses,
        cost_options: dict[str, Any],
        *,
        batch_size: int,
        micro_batches: int,
        communicator: Communicator,
        is_interrupted: Callable[[], bool],
    ):
        self.loader = loader
        self.order: Array = net.device.empty((loader.rows,), np.int64)
        self.sync = GradientSync(net, communicator, is_interrupted)
        self._net, self._optimizer, self._losses, self._cost_options = net, optimizer, losses, cost_options
        self._communicator, self._micro_batches = communicator, micro_batches
        self._rows = -(-min(batch_size, loader.rows) // micro_batches)
        self._graphs: dict[int, Callable[[], None]] = {}
        self._plan_version = net.plan.version

    def allocate(self) -> None:
        """Take the memory of a batch, once the loader is prepared. A shorter last batch uses slices of it."""
        net, loader, rows = self._net, self.loader, self._rows
        self._x_batch = net.device.empty((rows, loader.x.shape[1]), net.precision.compute)
        self._y_batch = net.device.xp.empty((rows, *loader.y.shape[1:]), loader.y.dtype)
        self._weight_batch = None if loader.weight is None else net.device.xp.empty(rows, net.dtype)

    def __call__(self, size: int) -> None:
        """Make a step on the next `size` rows."""
        net = self._net
        self._optimizer.begin_step(net)
        if net.plan.version != self._plan_version:
            self._graphs.clear()
            self._plan_version = net.plan.version
        graph = self._graphs.get(size)
        if graph is None:
            work = self._build_whole_batch(size) if self._micro_batches == 1 else self._build_accumulate_gradients(size)
            graph = self._graphs[size] = net.kernels.cuda_graph(work)
        graph()
        self._optimizer.end_step()
        self._losses.count += 1

    def _batch(self, size: int) -> tuple[list[tuple[Array, Array]], Array | None]:
        """Pairs of source and destination of `size` gathered rows, inputs and targets first; and the weights."""
        loader = self.loader
        batch = [(loader.x, self._x_batch[:size]), (loader.y, self._y_batch[:size])]
        if loader.weight is None or self._weight_batch is None:
            return batch, None
        weight = self._weight_batch[:size]
        return [*batch, (loader.weight, weight)], weight

    def _build_whole_batch(self, size: int) -> Callable[[], None]:
        net, optimizer, kernels = self._net, self._optimizer, self._net.kernels
        batch, weight = self._batch(size)
        x, y = batch[0][1], batch[1][1]
        options = {"row_scale": weight, "scale": 1 / size, **self._cost_options}
        order, losses, counters = self.order, self._losses.values, self._losses.counters
        begin = counters[:1]

        def work() -> None:
            for source, out in batch:
                kernels.gather(source, order, out, begin)
            kernels.record_loss(net.train_step(x, y, net.n_preprocessing, **options), losses, counters, net.loss_scale)
            optimizer.update(net)

        return work

    def _build_accumulate_gradients(self, size: int) -> Callable[[], None]:
        """The work of a batch of `size` rows over all ranks, of which this rank computes its micro-batches.

        Gradients of micro-batches are added in pairs, then the sums of pairs, and so on; `all_reduce` goes on in the
        same order over the ranks. The sum carries the batch's cost, so a step needs one all_reduce, or one a bucket.
        """
        net, optimizer, kernels, communicator = self._net, self._optimizer, self._net.kernels, self._communicator
        own = self._micro_batches // communicator.size
        first = own * communicator.rank
        edges = [shard(size, i, self._micro_batches).start for i in range(first, first + own + 1)]
        own_micro_batches = [self._build_micro_batch(begin, end, size) for begin, end in pairwise(edges)]
        partial_sums = [
            net.device.empty(net.flat_grads.shape, net.flat_grads.dtype) for _ in range((own - 1).bit_length())
        ]
        row_losses = net.device.empty((max(edges[-1] - edges[0], 1),), net.dtype)[: edges[-1] - edges[0]]
        losses, counters, cost = self._losses.values, self._losses.counters, net.flat.reduce_scalars[:1]
        sync = self.sync
        # With several micro-batches the gradients are complete only after the last of them.
        by_buckets = own == 1 and communicator.supports_overlap

        def work() -> None:
            sync.start()
            waiting: list[Array] = []
            rows: Array = row_losses
            for i, micro_batch in enumerate(own_micro_batches, start=1):
                rows = micro_batch(sync.layer_done if by_buckets else None)
                if own > 1:
                    at = edges[i - 1] - edges[0]
                    row_losses[at : at + len(rows)] = rows
                grads, pairs = net.flat_grads, i
                while pairs % 2 == 0:
                    grads += waiting.pop()
                    pairs //= 2
                if i < own:
                    partial_sum = partial_sums[len(waiting)]
                    partial_sum[...] = grads
                    waiting.append(partial_sum)
            while waiting:
                net.flat_grads += waiting.pop()
            kernels.record_loss(rows if own == 1 else row_losses, cost, None, net.loss_scale)
            sync.finish()
            kernels.record_loss(cost, losses, counters, rows=size)
            optimizer.update(net)

        return work

    def _build_micro_batch(self, first: int, last: int, size: int) -> Callable[[Callable[[int], None] | None], Array]:
        """Forward and backward over rows first … last-1 of a batch of `size`; returns the rows' costs."""
        net, kernels = self._net, self._net.kernels
        batch, weight = self._batch(last - first)
        options = {"row_scale": weight, "scale": 1 / size, **self._cost_options}
        order, begin = self.order[first:], self._losses.counters[:1]
        x, y = batch[0][1], batch[1][1]
        counters = random_counters(net)

        def micro_batch(layer_done: Callable[[int], None] | None) -> Array:
            if len(x):
                for source, out in batch:
                    kernels.gather(source, order, out, begin)
            else:
                # A rank without rows counts the pass, too: one that resumes from rank 0's counters draws what is due.
                for counter in counters:
                    kernels.increment(counter)
            return net.train_step(x, y, net.n_preprocessing, layer_done=layer_done, **options)

        return micro_batch


def check_micro_batches(micro_batches: int | None, batch_size: int, ranks: int) -> int:
    """The micro-batches of a batch over all ranks, one for each by default. Raises ValueError for a wrong number."""
    count = ranks if micro_batches is None else micro_batches
    if not (is_int(count) and count >= 1 and count % ranks == 0):
        expected = f"a whole number ≥ 1 that {ranks} ranks can share evenly"
        raise ValueError(f"micro_batches={count!r}; expected {expected}")
    if batch_size < count:
        raise ValueError(f"batch_size={batch_size}, but {count} micro-batches; expected at least a row for each")
    return int(count)
