"""ONNX files, judged by onnx.checker and run by onnxruntime."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest

from gpu_nn import Adam, DataError, Dense, Dropout, Network, Standardize, Trainer, __version__, export_onnx, onnx_file
from gpu_nn.data import digits
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.layers import LAYERS, BatchNorm, InputNoise, LayerNorm
from tests.cuda_emulator.device import emulated_device
from tests.kernels.activations import ACTIVATION_FORMULAS

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

X, Y = digits()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def trained(activation="relu", dtype="float32", device="cpu", epochs=3):
    """A network with preprocessing, dropout and two hidden layers that has learned the digits."""
    layers = [Standardize(), Dense(48, activation), Dropout(0.3), Dense(32, activation), Dense(10)]
    net = Network(layers, n_inputs=64, device=device, dtype=dtype, seed=1)
    deviation = X.std(axis=0)
    net.state["0.shift"][...] = net.device.asarray(X.mean(axis=0), dtype)
    net.state["0.scale"][...] = net.device.asarray(1 / np.where(deviation == 0, 1, deviation), dtype)
    Trainer(net, Adam(3e-3), batch_size=64).fit(X[:1500], Y[:1500], epochs=epochs)
    return net


def small(classes=None, dtype="float32"):
    net = Network([5, 4, 3], device="cpu", dtype=dtype, seed=2)
    net.classes = classes
    return net


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def computed(net, path, x):
    """Labels and probabilities that onnxruntime gives for x."""
    export_onnx(net, path)
    onnx.checker.check_model(str(path), full_check=True)
    return session(path).run(["label", "probabilities"], {"x": np.asarray(x, net.dtype)})


# What comes out is what the network gives


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_trained_network_gives_the_same_probabilities(path, activation, dtype):
    net = trained(activation, dtype)
    assert (net.predict(X[1500:]) == Y[1500:]).mean() > 0.7  # it is sure of much, and not of all
    label, p = computed(net, path, X)
    ours = net.predict_proba(X)
    assert p.dtype == ours.dtype == np.dtype(dtype)
    np.testing.assert_allclose(p, ours, rtol=0, atol=1e-6 if dtype == "float32" else 1e-12)
    np.testing.assert_array_equal(label, net.predict(X))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_inputs_at_the_extremes_give_the_same_probabilities(path, activation, dtype):
    net = trained(activation, dtype)
    signs = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], (60, 64))
    x = np.concatenate([np.zeros((1, 64)), 1e4 * signs, 1e-30 * signs, 1e4 * np.eye(64), -1e4 * np.eye(64)])
    label, p = computed(net, path, x)
    ours = net.predict_proba(x)
    np.testing.assert_allclose(p, ours, rtol=0, atol=1e-6)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(label, net.predict(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_has_the_digits_of_exact_arithmetic(path, activation, dtype):
    z = np.concatenate([[0, 1e4, -1e4, 1e30, -1e30], np.linspace(-30, 30, 241)]).astype(dtype)
    graph = onnx_file.Graph(np.dtype(dtype))
    output = ACTIVATIONS[activation].onnx(graph, "z")
    real = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [*graph.nodes, onnx.helper.make_node("Identity", [output], ["a"])],
            "activation",
            [onnx.helper.make_tensor_value_info("z", real, ["n"])],
            [onnx.helper.make_tensor_value_info("a", real, ["n"])],
            [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", onnx_file.OPSET)],
        ir_version=onnx_file.IR_VERSION,
    )
    onnx.save(model, path)
    (found,) = session(path).run(None, {"z": z})
    with mpmath.workdps(40):
        expected = np.array([float(ACTIVATION_FORMULAS[activation](mpmath.mpf(float(value)))) for value in z])
    tolerance = 3e-7 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["identity", "relu", "gelu"])
@pytest.mark.parametrize("norm", [BatchNorm, LayerNorm])
def test_normalised_layers_and_noise_give_the_same_probabilities(path, norm, activation, dtype):
    layers = [InputNoise(0.1), Dense(48, bias=False), norm(activation), Dropout(0.1), Dense(32), norm("tanh", eps=1e-3)]
    net = Network([*layers, Dense(10)], n_inputs=64, device="cpu", dtype=dtype, seed=1)
    Trainer(net, Adam(3e-3), batch_size=64).fit(X[:1500] / 16, Y[:1500], epochs=5)
    assert (net.predict(X[1500:] / 16) == Y[1500:]).mean() > 0.8
    signs = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], (60, 64))
    x = np.concatenate([X / 16, np.zeros((1, 64)), 1e4 * signs])
    label, p = computed(net, path, x)
    ours = net.predict_proba(x)
    np.testing.assert_allclose(p, ours, rtol=0, atol=1e-6 if dtype == "float32" else 1e-12)
    np.testing.assert_array_equal(label, net.predict(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [0, 1, 2, 5000])
def test_a_batch_may_have_any_number_of_rows(path, rows, dtype):
    net = small(["a", "b", "c"], dtype)
    x = np.random.default_rng(0).standard_normal((rows, 5)).astype(dtype)
    label, p = computed(net, path, x)
    assert (label.shape, p.shape) == ((rows,), (rows, 3))
    np.testing.assert_allclose(p, net.predict_proba(x), rtol=0, atol=1e-6)
    assert list(label) == [net.classes[i] for i in net.predict(x)]


@pytest.mark.parametrize(
    "layers", [[Dense(3)], [Dropout(0.5)], [Standardize()], [Standardize(), Dropout(0.1)]], ids=str
)
def test_a_network_may_be_next_to_nothing(path, layers):
    net = Network(layers, n_inputs=3, device="cpu")
    x = np.array([[1.0, 2.0, -5.0], [0, 0, 0]], np.float32)
    label, p = computed(net, path, x)
    np.testing.assert_allclose(p, net.predict_proba(x), rtol=0, atol=1e-7)
    np.testing.assert_array_equal(label, net.predict(x))


def test_the_label_follows_logits_whose_probabilities_are_equal(path):
    net = Network([Standardize()], n_inputs=3, device="cpu")
    x = np.array([[0.01, np.nextafter(np.float32(0.01), np.float32(1)), -5.0]], np.float32)
    label, p = computed(net, path, x)
    assert p[0, 0] == p[0, 1]
    assert label == net.predict(x) == [1]


def test_a_network_on_a_gpu_gives_the_file_of_the_cpu(path, tmp_path):
    export_onnx(trained(epochs=0), tmp_path / "cpu.onnx")
    with emulated_device():
        export_onnx(trained(epochs=0, device="cuda"), path)
    assert path.read_bytes() == (tmp_path / "cpu.onnx").read_bytes()


# Labels


@pytest.mark.parametrize(
    ("classes", "kind"),
    [
        (None, np.int64),
        ([30, -(2**63), 2**63 - 1], np.int64),
        ([False, True, 2], np.int64),
        ([0.5, -1.0, 2.5], np.float64),
        ([1, 2.5, 3], np.float64),
        (["circle", "été", "日本, 東京\n"], np.object_),
        (np.array(["x", "", "z"]), np.object_),
        (np.array([7, 8, 9], np.uint8), np.int64),
    ],
    ids=str,
)
def test_labels_are_the_names_of_the_classes(path, classes, kind):
    net = small(classes)
    x = np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32)
    label, _ = computed(net, path, x)
    assert label.dtype == kind
    names = range(3) if classes is None else list(classes)
    assert list(label) == [names[i] for i in net.predict(x)]
    assert set(label) == set(names)


def test_a_class_beyond_int64_is_refused(path):
    with pytest.raises(ValueError, match="class 9223372036854775808 does not fit into int64"):
        export_onnx(small([1, 2, 2**63]), path)
    assert not path.exists()


# What the file says of itself


def test_the_file_says_what_made_it_and_what_goes_in_and_out(path):
    net = small(["a", "é", "c"], "float64")
    export_onnx(net, path)
    model = onnx.load(path)
    assert (model.producer_name, model.producer_version) == ("gpu_nn", __version__)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
    assert {entry.key: json.loads(entry.value) for entry in model.metadata_props} == {"classes": ["a", "é", "c"]}
    found = session(path)
    described = [(value.name, value.shape, value.type) for value in (*found.get_inputs(), *found.get_outputs())]
    assert described == [
        ("x", ["batch", 5], "tensor(double)"),
        ("label", ["batch"], "tensor(string)"),
        ("probabilities", ["batch", 3], "tensor(double)"),
    ]


def test_names_of_columns_are_metadata(path):
    net = small()
    net.feature_names, net.target_name = ["a", "é", "c", "d", "e"], "shape"
    export_onnx(net, path)
    found = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    assert found == {"feature_names": net.feature_names, "target_name": "shape"}


def test_dropout_leaves_no_trace_and_arrays_keep_their_names(path):
    export_onnx(trained(epochs=0), path)
    graph = onnx.load(path).graph
    assert [node.op_type for node in graph.node] == [
        *("Sub", "Mul"),
        *("MatMul", "Add", "Relu") * 2,
        *("MatMul", "Add", "Softmax", "ArgMax"),
    ]
    names = {array.name for array in graph.initializer}
    assert names == {"0.shift", "0.scale", *(f"{i}.{name}" for i in (1, 3, 4) for name in ("weight", "bias"))}


def test_equal_networks_are_equal_bytes(path):
    export_onnx(small(["a", "b", "c"]), path)
    program = (
        "import sys, gpu_nn\n"
        "net = gpu_nn.Network([5, 4, 3], device='cpu', seed=2)\n"
        "net.classes = ['a', 'b', 'c']\n"
        "gpu_nn.export_onnx(net, sys.argv[1])\n"
    )
    other = path.with_name("other.onnx")
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run(
        [sys.executable, "-c", program, str(other)], check=True, cwd=Path(__file__).parents[1], env=environment
    )
    assert other.read_bytes() == path.read_bytes()


# The table


def test_every_layer_has_an_entry():
    assert set(onnx_file.LAYER_NODES) == set(LAYERS.values())


def test_a_layer_without_an_entry_is_named(path, monkeypatch):
    monkeypatch.delitem(onnx_file.LAYER_NODES, Standardize)
    with pytest.raises(ValueError, match=r"layer 0 is Standardize\(\), for which ONNX export has no entry; it knows"):
        export_onnx(trained(epochs=0), path)
    assert not path.exists()


# What is not written


def test_parameters_that_are_not_finite_are_refused(path):
    net = small()
    net.parameters["0.bias"][1] = np.inf
    with pytest.raises(ValueError, match=r"array 0\.bias has NaN or infinite values"):
        export_onnx(net, path)
    net = small(["a", "b"])
    with pytest.raises(ValueError, match="classes has 2 names"):
        export_onnx(net, path)
    assert os.listdir(path.parent) == []


def test_more_than_a_protocol_buffer_holds_is_refused(path, monkeypatch):
    monkeypatch.setattr(onnx_file, "_MAX_BYTES", 100)
    with pytest.raises(ValueError, match=r"the network's arrays have 0\.0 GiB; an ONNX file holds less than 2 GiB"):
        export_onnx(small(), path)
    assert not path.exists()


def test_a_full_disk_leaves_the_old_file_whole_and_no_other(path, monkeypatch):
    export_onnx(small(), path)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpu_nn.files.os.fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*model\.onnx: No space left on device"):
        export_onnx(trained(epochs=0), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["model.onnx"]


def test_without_onnx_the_hint_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'gpu_nn\[onnx\]'"):
        export_onnx(small(), path)
    assert not path.exists()
