"""Layer and batch normalisation within a network. Their kernels: tests/kernels/test_layer_norm and test_batch_norm."""

import tracemalloc

import numpy as np
import pytest

from gpu_nn import SGD, Adam, AdamW, BatchNorm, Dense, InputNoise, LayerNorm, Network, Trainer, load, save
from gpu_nn import functional as F
from gpu_nn.kernels.activations import ACTIVATIONS

NORMS = pytest.mark.parametrize("norm", [LayerNorm, BatchNorm])
X = np.random.default_rng(0).normal(1, 2, (40, 5))
Y = np.random.default_rng(1).integers(0, 3, 40)


def network(norm, activation="tanh", dtype="float64", seed=0):
    layers = [norm(), Dense(7, bias=False), norm(activation), Dense(6, "silu"), norm(), Dense(3)]
    net = Network(layers, n_inputs=5, device="cpu", seed=seed, dtype=dtype)
    random = np.random.default_rng(seed)
    for array in net.parameters.values():
        array += random.normal(0, 0.3, array.shape)
    return net


@NORMS
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_gradient_is_the_derivative_of_the_cost_along_any_direction(norm, activation, rows):
    net = network(norm, activation)
    x, y = X[:rows], Y[:rows]

    def cost(flat):
        net.flat_parameters[:] = flat
        return net.loss_and_grad(x, y)

    start = net.flat_parameters.copy()
    for seed in range(3):
        cost(start)
        grad = net.flat_grads.copy()
        direction = np.random.default_rng(seed).standard_normal(start.size)
        h = 1e-6
        exact = (cost(start + h * direction) - cost(start - h * direction)) / (2 * h)
        assert grad @ direction == pytest.approx(exact, rel=1e-6, abs=1e-8)


@NORMS
def test_gradient_of_the_inputs_is_that_of_the_cost(norm):
    """Through a normalisation that is not first, by the gradient of a weight that multiplies the inputs."""
    net = Network([Dense(5), norm("gelu"), Dense(3)], n_inputs=5, device="cpu", dtype="float64", seed=1)
    net.loss_and_grad(X, Y)
    weight, grad = net.parameters["0.weight"], net.grads["0.weight"].copy()
    for place in ((0, 0), (3, 4)):
        h = 1e-6
        costs = []
        for step in (h, -h):
            weight[place] += step
            costs.append(float(net.loss_and_grad(X, Y)))
            weight[place] -= step
        assert grad[place] == pytest.approx((costs[0] - costs[1]) / (2 * h), rel=1e-5, abs=1e-9)


@NORMS
def test_a_fresh_normalisation_gives_columns_or_rows_of_mean_0_and_variance_1(norm):
    net = Network([norm(eps=1e-12), Dense(3)], n_inputs=5, device="cpu", dtype="float64")
    out = net.plan.bound_layers(40, training=True)[0].forward(X, True)
    axis = 0 if norm is BatchNorm else 1
    np.testing.assert_allclose(out.mean(axis=axis), 0, atol=1e-12)
    np.testing.assert_allclose(out.var(axis=axis), 1, rtol=1e-8)


@NORMS
def test_a_prediction_does_not_depend_on_the_rows_beside_it(norm):
    net = network(norm, dtype="float32")
    for _ in range(5):
        net.loss_and_grad(X, Y)
    together = net.predict_proba(X)
    alone = np.concatenate([net.predict_proba(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_running_statistics_are_those_of_all_batches_seen():
    net = Network([BatchNorm(momentum=0.5), Dense(3)], n_inputs=5, device="cpu", dtype="float64")
    mean, variance = np.zeros(5), np.ones(5)
    for rows in (slice(0, 10), slice(10, 13), slice(13, 40)):
        net.loss_and_grad(X[rows], Y[rows])
        mean += 0.5 * (X[rows].mean(axis=0) - mean)
        variance += 0.5 * (X[rows].var(axis=0, ddof=1) - variance)
    np.testing.assert_allclose(net.state["0.running_mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(net.state["0.running_var"], variance, rtol=1e-12)
    expected = (X - mean) / np.sqrt(variance + 1e-5) @ net.parameters["1.weight"]
    np.testing.assert_allclose(net.forward(X), expected, rtol=1e-10, atol=1e-12)


def test_a_training_batch_of_one_row_takes_the_running_statistics_and_leaves_them():
    net = network(BatchNorm)
    for _ in range(3):
        net.loss_and_grad(X, Y)
    before = {name: array.copy() for name, array in net.state.items()}
    loss = net.loss_and_grad(X[:1], Y[:1])
    assert float(loss) == pytest.approx(float(F.softmax_cross_entropy(net.forward(X[:1]), Y[:1])), rel=1e-12)
    assert net.flat_grads.any()
    for name, array in before.items():
        np.testing.assert_array_equal(net.state[name], array)


@NORMS
def test_only_the_weights_of_dense_decay(norm):
    net = network(norm)
    decayed = net.flat_parameters[: net.flat.n_decayed]
    names = {name for name, array in net.parameters.items() if np.shares_memory(array, decayed)}
    assert names == {"1.weight", "3.weight", "5.weight"}
    before = {name: array.copy() for name, array in net.parameters.items()}
    net.flat_grads[:] = 0
    AdamW(0.1, weight_decay=0.5).step(net)
    for name, array in net.parameters.items():
        np.testing.assert_allclose(array, before[name] * (0.95 if name in names else 1), rtol=1e-12)


@NORMS
def test_it_trains_and_comes_back_from_a_file(norm, tmp_path):
    """On columns of sizes from 1e-3 to 10."""
    random = np.random.default_rng(0)
    centres = random.normal(0, 1, (3, 5))
    y = random.integers(0, 3, 600)
    x = (centres[y] * 2 + random.normal(0, 1, (600, 5))) * 10.0 ** np.arange(-3, 2)
    layers = [BatchNorm(), Dense(16, bias=False), norm("relu"), Dense(3)]
    net = Network(layers, n_inputs=5, device="cpu", seed=0)
    # 401 rows: the last batch of an epoch has one.
    Trainer(net, Adam(0.01), batch_size=50).fit(x[:401], y[:401], epochs=15)
    assert (net.predict(x[401:]) == y[401:]).mean() > 0.85
    save(net, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors", "cpu")
    assert again.layers == net.layers
    np.testing.assert_array_equal(again.forward(x), net.forward(x))


@NORMS
def test_a_step_after_the_first_allocates_nothing_that_grows_with_the_batch(norm):
    peaks = {}
    for n in (500, 4000):
        layers = [InputNoise(0.1), Dense(64, bias=False), norm("gelu"), Dense(64), norm("tanh"), Dense(4)]
        net = Network(layers, n_inputs=6, device="cpu")
        stepper = SGD(0.1)
        x = np.random.default_rng(0).standard_normal((n, 6)).astype(np.float32)
        y = np.random.default_rng(1).integers(0, 4, n)
        for _ in range(2):
            net.train_step(x, y, 0, scale=1 / n)
            stepper.step(net)
        tracemalloc.start()
        net.train_step(x, y, 0, scale=1 / n)
        stepper.step(net)
        peaks[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    block = 1 << 16
    assert peaks[4000] < 4 * block * 8
    assert peaks[4000] - peaks[500] < 4 * block * 8 / 2


@NORMS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rely"}, "activation='rely' is not one of .* Did you mean 'relu'?"),
        ({"eps": 0.0}, "eps=0.0; expected a finite number above 0"),
        ({"eps": float("nan")}, "eps=nan"),
        ({"eps": float("inf")}, "eps=inf"),
    ],
)
def test_fields_out_of_range_are_refused(norm, options, message):
    with pytest.raises(ValueError, match=message):
        norm(**options)


@pytest.mark.parametrize("momentum", [0, -0.1, 1.5, float("nan")])
def test_a_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(
        ValueError, match=f"momentum={momentum}; expected a finite number above 0 and ≤ 1, the weight of the newest"
    ):
        BatchNorm(momentum=momentum)


def test_dense_without_a_bias_has_none():
    net = Network([Dense(4, "relu", bias=False), Dense(3)], n_inputs=5, device="cpu", dtype="float64")
    assert list(net.parameters) == ["0.weight", "1.weight", "1.bias"]
    hidden = np.maximum(X @ net.parameters["0.weight"], 0)
    np.testing.assert_allclose(net.forward(X), hidden @ net.parameters["1.weight"], rtol=1e-12, atol=1e-13)
    with pytest.raises(ValueError, match="bias=2; expected True or False"):
        Dense(4, bias=2)
