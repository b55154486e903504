"""The windows of a stream on the device, one at a time, with the next being read meanwhile."""

from collections.abc import Generator
from typing import Any

import numpy as np

from gpu_nn.data.read_ahead import ReadAhead
from gpu_nn.data.stream import Stream
from gpu_nn.device import Array
from gpu_nn.network import Network


class Windows:
    """rows: of a window, a whole number of batches, or all rows where they are fewer.  x: (rows, inputs) through the
    fixed layers at the front, y: the rows' class indices or targets, both on the device and always the same arrays.
    The face is that of `Resident`, but for weights, of which there are none.
    """

    weight: Array | None = None

    def __init__(self, stream: Stream, net: Network, batch_size: int):
        if stream.shape[1] != net.n_inputs:
            expected = f"(n, {net.n_inputs}), one column for each input"
            raise ValueError(f"x is a stream of shape {stream.shape}; expected {expected}")
        if stream.targets not in ((), (net.n_classes,)):
            raise ValueError(
                f"y of the stream has rows of {stream.targets}; expected labels or {net.n_classes} targets"
            )
        device, n_inputs = net.device, net.widths[0]
        self._stream, self._net = stream, net
        self.rows = rows = min(max(stream.window_rows // batch_size, 1) * batch_size, len(stream))
        kind = np.dtype(np.int64) if stream.targets == () else net.dtype
        self.x = device.empty((rows, net.widths[net.n_fixed]), net.dtype)
        self.y = device.empty((rows, *stream.targets), kind)
        self._host = device.empty_on_host((rows, n_inputs), net.dtype)
        self._host_y = device.empty_on_host(self.y.shape, kind)
        # What comes from the host, before the fixed layers. On the CPU they take it where it is.
        direct = not net.n_fixed or device.kind == "cpu"
        self._raw = None if direct else device.empty((rows, n_inputs), net.dtype)

    def described(self) -> dict[str, Any]:
        """What tells this data from other."""
        return self._stream.described()

    def prepare(self) -> None:
        """Each window is prepared as it comes."""

    def epoch(self, random: np.random.Generator | None, begins: int, order: Array) -> Generator[tuple[int, int]]:
        """Brings window after window into x and y, from that of place `begins` of the epoch on, and the order of its
        rows into `order`, (rows,) of int64; yields its first place and the one after its last.

        The epoch is drawn from `random`, None for the rows as they lie; any window of it can be the first.
        """
        pieces = self._stream.order(random)
        seed = None if random is None else int(random.integers(2**63))
        first = begins // self.rows
        x, y, n_classes = self._host, self._host_y, self._net.n_classes
        with ReadAhead(self._stream, pieces, x, y, n_classes, first) as ahead:
            for number in range(first, -(-len(pieces) // self.rows)):
                start = number * self.rows
                size = min(self.rows, len(pieces) - start)
                with ahead.window() as window:
                    self._bring(*window)
                rows = np.arange(size) if seed is None else np.random.default_rng([seed, number]).permutation(size)
                order[:size] = self._net.device.asarray(rows)
                yield start, start + size

    def _bring(self, x: np.ndarray, y: np.ndarray) -> None:
        net, device, size = self._net, self._net.device, len(x)
        device.upload(y, self.y[:size])
        if not net.n_fixed:
            device.upload(x, self.x[:size])
        elif self._raw is None:
            net.prepare(x, self.x[:size])
        else:
            device.upload(x, self._raw[:size])
            net.prepare(self._raw[:size], self.x[:size])
