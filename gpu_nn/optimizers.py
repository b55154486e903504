"""Optimizers over a network's flat parameter vector: one kernel a step, whatever the number of layers.

Weight decay applies to a layer's `weight_decay_params`: the weights of Dense, no biases, nothing of a normalisation. In
SGD and Adam it is coupled (L2: its gradient is added to the cost's), in AdamW decoupled. A gradient whose Euclidean
norm exceeds max_norm is scaled down to it.
"""

import math
from collections.abc import Mapping

import numpy as np

from gpu_nn.device import Array
from gpu_nn.network import Network
from gpu_nn.precision import LARGEST_LOSS_SCALE, LOSS_SCALE_FACTOR, LOSS_SCALE_INTERVAL
from gpu_nn.schedules import Schedule, as_schedule
from gpu_nn.validation import BELOW_1, POSITIVE, check_number

# A moment that decays by 0.9 a step loses a factor of 1,000 in between, far less than what flush_subnormals leaves.
_FLUSH_EVERY = 64


class Optimizer:
    """lr: a number or a `schedules.Schedule`.  Each optimizer belongs to one network, whose size its state has."""

    _state_names: tuple[str, ...] = ()

    def __init__(self, lr: float | Schedule, weight_decay: float, max_norm: float | None):
        self.schedule = as_schedule(lr)
        self.weight_decay = check_number("weight_decay", weight_decay)
        self.max_norm = None if max_norm is None else check_number("max_norm", max_norm, POSITIVE, " or None")
        self.steps = 0
        self._net: Network | None = None

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.schedule(self.steps)

    def bind(self, net: Network) -> None:
        """Allocate the state for `net`; the first `step` does it when this was not called."""
        if self._net is net:
            return
        if self._net is not None:
            raise ValueError("this optimizer belongs to another network; make a new one for each network")
        self._net = net
        self._kernels = net.kernels
        with net.device.active(f"a network with fewer than {net.flat.n_parameters:,} parameters needs less"):
            xp = net.device.xp
            size = net.flat_parameters.shape
            self.state: Mapping[str, Array] = {name: net.device.zeros(size, net.dtype) for name in self._state_names}
            # In float64: a schedule's value must not be rounded before it is multiplied by the other factors.
            self._learning_rate = xp.zeros(1, np.float64)
            self._step = xp.zeros(1, np.int64)
            self._norm = xp.zeros(1, np.float64)
            self._scale = None
            if self.max_norm is not None or net.loss_scale is not None:
                self._scale = xp.ones(1, net.dtype)
            if net.loss_scale is not None:
                # Skipped steps are not counted on the device, but on the host.
                scaling = {"loss_scale": net.loss_scale, "good_steps": xp.zeros(1, np.int64), "step": self._step}
                self.state = {**self.state, **scaling}
        self._step[...] = self.steps
        self._last_learning_rate = math.nan

    def step(self, net: Network) -> None:
        """Change net's parameters by its gradients."""
        self.begin_step(net)
        self.update(net)
        self.end_step()

    def begin_step(self, net: Network) -> None:
        """Write the learning rate of the coming step to device memory."""
        if self._net is not net:
            self.bind(net)
        learning_rate = self.schedule(self.steps)
        if learning_rate != self._last_learning_rate:
            self._learning_rate.fill(learning_rate)
            self._last_learning_rate = learning_rate

    def update(self, net: Network) -> None:
        """The device's work of a step: the same launches in each, so that a CUDA graph can hold them."""
        if self._scale is not None:
            self._kernels.gradient_norm(net.flat_grads, self._norm)
        if net.loss_scale is not None:
            self._kernels.adjust_loss_scale(
                self._norm,
                net.loss_scale,
                self.state["good_steps"],
                self._step,
                self._scale,
                max_norm=self.max_norm,
                factor=LOSS_SCALE_FACTOR,
                most=LARGEST_LOSS_SCALE,
                interval=LOSS_SCALE_INTERVAL,
            )
        else:
            self._kernels.increment(self._step)
            if self._scale is not None:
                self._kernels.clip_scale(self._norm, self.max_norm, self._scale)
        self._apply(net)

    def end_step(self) -> None:
        """Count the step, and flush subnormal numbers of the state every 64 steps."""
        self.steps += 1
        if self.steps % _FLUSH_EVERY == 0:
            for name in self._state_names:
                self._kernels.flush_subnormals(self.state[name])

    def _apply(self, net: Network) -> None:
        raise NotImplementedError

    def load_state(self, steps: int, arrays: Mapping[str, np.ndarray], net: Network) -> None:
        """Continue after `steps` steps with the state arrays of that moment."""
        self.bind(net)
        self.steps = steps
        self._step.fill(steps)
        for name, array in self.state.items():
            array[...] = net.device.asarray(arrays[name])


class SGD(Optimizer):
    """v ← momentum·v + g;  w ← w - η v, with nesterov w ← w - η (g + momentum·v).  g includes weight_decay·w."""

    def __init__(
        self,
        lr: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        *,
        max_norm: float | None = None,
    ):
        super().__init__(lr, weight_decay, max_norm)
        self.momentum = check_number("momentum", momentum, BELOW_1)
        self.nesterov = bool(nesterov)
        if nesterov and not momentum:
            raise ValueError("nesterov=True needs a momentum above 0, such as 0.9")
        if momentum:
            self._state_names = ("velocity",)

    def _apply(self, net: Network) -> None:
        self._kernels.sgd(
            net.flat_parameters,
            net.flat_grads,
            self.state.get("velocity"),
            self._learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            decayed=net.flat.n_decayed,
            gradient_scale=self._scale,
        )


class Adam(Optimizer):
    """m ← β₁m + (1-β₁)g, v ← β₂v + (1-β₂)g², w ← w - η m̂/(√v̂ + ε) (Kingma & Ba 2015).

    m̂ = m/(1-β₁ᵗ) and v̂ = v/(1-β₂ᵗ) at step t, from 1.
    """

    _state_names = ("mean", "square")
    _decoupled = False

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        max_norm: float | None = None,
    ):
        super().__init__(lr, weight_decay, max_norm)
        self.beta1 = check_number("beta1", beta1, BELOW_1)
        self.beta2 = check_number("beta2", beta2, BELOW_1)
        self.eps = check_number("eps", eps, POSITIVE)

    def _apply(self, net: Network) -> None:
        self._kernels.adam(
            net.flat_parameters,
            net.flat_grads,
            self.state["mean"],
            self.state["square"],
            self._learning_rate,
            self._step,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            decoupled=self._decoupled,
            decayed=net.flat.n_decayed,
            gradient_scale=self._scale,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: w ← w - η·weight_decay·w beside Adam's step (Loshchilov & Hutter 2019)."""

    _decoupled = True

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        max_norm: float | None = None,
    ):
        super().__init__(lr, beta1, beta2, eps, weight_decay, max_norm=max_norm)


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
