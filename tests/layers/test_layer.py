"""A layer writes only what differs from the defaults of `Layer` and `BoundLayer`."""

from dataclasses import dataclass, fields

import numpy as np
import pytest

from gpu_nn import Dense, Network
from gpu_nn.layers import LAYERS, BoundLayer, Layer


@dataclass(frozen=True)
class Negate(Layer):
    def bind(self, memory):
        return BoundNegate(self, memory)


class BoundNegate(BoundLayer):
    def forward(self, x, training):
        return np.negative(x, out=self.memory.rows("out", x.shape[1]))

    def backward(self, d, needs_input_grad):
        return np.negative(d, out=d)


X, Y = np.random.default_rng(0).standard_normal((20, 3)), np.random.default_rng(1).integers(0, 2, 20)


def network(*layers):
    return Network(layers, n_inputs=3, device="cpu", dtype="float64")


def test_a_layer_of_a_bind_alone_has_no_parameters_and_as_many_outputs_as_inputs():
    net = network(Dense(4, "tanh"), Negate(), Dense(2))
    assert net.parameters.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert (net.state, net.widths, net.n_preprocessing) == ({}, [3, 4, 4, 2], 0)


def test_its_gradient_reaches_the_layer_below():
    net, plain = network(Dense(4, "tanh"), Negate(), Dense(2)), network(Dense(4, "tanh"), Dense(2))
    plain.parameters["1.weight"][...] = -net.parameters["2.weight"]
    assert net.loss_and_grad(X, Y) == plain.loss_and_grad(X, Y)
    for name, array in plain.grads.items():
        if name.startswith("0."):
            np.testing.assert_array_equal(net.grads[name], array)


def test_a_dense_layer_does_not_fuse_the_relu_of_one_that_is_not_right_below_it():
    net = network(Dense(4, "relu"), Negate(), Dense(2))
    assert net.plan.bound_layers(20, training=True)[0].relu_fusion is None
    assert network(Dense(4, "relu"), Dense(2)).plan.bound_layers(20, training=True)[0].relu_fusion is not None


def test_a_layer_without_bind_is_refused_when_it_is_bound():
    with pytest.raises(NotImplementedError):
        network(Layer(), Dense(2)).forward(X)


def test_class_variables_of_layers_are_no_fields():
    for layer in LAYERS.values():
        assert not {"is_preprocessing", "supports_half", "half_params", "weight_decay_params"} & {
            field.name for field in fields(layer)
        }
