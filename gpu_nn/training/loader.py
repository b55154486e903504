"""The data of a training: what a step reads its batches from, and what is validated on."""

from collections.abc import Generator
from typing import Any, Protocol

import numpy as np

from gpu_nn.data.stream import StreamDataset
from gpu_nn.device import Array
from gpu_nn.distributed.communicator import Communicator
from gpu_nn.network import Network
from gpu_nn.training.array_loader import ArrayLoader
from gpu_nn.training.stream_loader import StreamLoader, check_fits


class Loader(Protocol):
    """Rows of a data set on the device.

    rows: of a window, the most that are on the device at once.  x: (rows of this rank, inputs); once the loader is
    prepared, behind the preprocessing layers at the front of the network.  y: class indices or targets of these rows.
    weight: (rows,) of mean 1, or None.
    """

    rows: int
    x: Array
    y: Array
    weight: Array | None

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data in a checkpoint, as JSON represents it; to be called before `prepare`."""

    def prepare(self) -> None:
        """Apply the preprocessing layers, whose state does not change any more, to the rows that are in memory."""

    def epoch(self, random: np.random.Generator | None, first_row: int, order: Array) -> Generator[tuple[int, int]]:
        """Bring the windows of an epoch to the device, from that of row number `first_row` of the epoch on.

        random: draws the order of the epoch; None leaves the rows as they lie.  order: (rows,) of int64; receives the
        order of each window.  Yields the numbers of a window's first row and of the row after its last.
        """


def training_loader(
    x: Any, y: Any, sample_weight: Any, net: Network, batch_size: int, communicator: Communicator
) -> Loader:
    """The loader of the arguments of `Trainer.fit`. Raises ValueError, TypeError or DataError for wrong ones."""
    if not isinstance(x, StreamDataset):
        return ArrayLoader(net, x, y, sample_weight)
    if y is not None or sample_weight is not None:
        raise ValueError("x is a StreamDataset, which has its own y and no sample_weight; pass neither")
    return StreamLoader(x, net, batch_size, communicator)


def validation_data(validation: Any, net: Network) -> ArrayLoader | StreamDataset | None:
    """The validation data of `Trainer.fit`: arrays on the device, or a stream as it is."""
    if validation is None:
        return None
    if isinstance(validation, StreamDataset):
        check_fits("validation", validation, net)
        return validation
    if not (isinstance(validation, tuple | list) and len(validation) == 2):
        length = f" of {len(validation)}" if hasattr(validation, "__len__") else ""
        raise TypeError(f"validation is a {type(validation).__name__}{length}; expected (x, y), or a StreamDataset")
    x, y = validation
    return ArrayLoader(net, x, y, name="validation ")
