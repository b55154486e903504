"""A copy of the best parameters of a fit."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpu_nn.device import Array
from gpu_nn.network import Network

_PREFIX = "kept."


class BestWeights:
    """A copy of `net.inference_state`, in device memory that is allocated once a fit; empty until `keep`."""

    def __init__(self) -> None:
        self._kept: dict[str, Array] = {}
        self._kinds: dict[str, tuple[tuple[int, ...], np.dtype]] = {}

    def begin(self, net: Network) -> None:
        """Forget what was kept, for a fit of `net`."""
        self._kept = {}
        self._kinds = {name: (array.shape, array.dtype) for name, array in net.inference_state.items()}

    def keep(self, net: Network) -> None:
        for name, array in net.inference_state.items():
            # A checkpoint restores NumPy arrays.
            if type(self._kept.get(name)) is not type(array):
                self._kept[name] = net.device.xp.empty_like(array)
            self._kept[name][...] = array

    def restore(self, net: Network) -> None:
        """Copy the kept arrays back to the network, if there are any."""
        for name, array in self._kept.items():
            net.inference_state[name][...] = net.device.asarray(array)

    def forget(self) -> None:
        self._kept = {}

    def state(self) -> dict[str, Any]:
        return {_PREFIX + name: array for name, array in self._kept.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the entries that `state` returned; to be called after `begin`.

        Raises ValueError for the weights of another network, and for ones that are not finite.
        """
        kept = {name.removeprefix(_PREFIX): array for name, array in state.items() if name.startswith(_PREFIX)}
        if kept and {name: (array.shape, array.dtype) for name, array in kept.items()} != self._kinds:
            raise ValueError("the best weights are those of another network")
        if not all(np.isfinite(array).all() for array in kept.values()):
            raise ValueError("the best weights are not finite")
        self._kept = kept
