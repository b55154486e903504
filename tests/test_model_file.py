import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gpu_nn import DataError, DeviceError, MLPClassifier, Network, device, export_onnx, load, save
from gpu_nn.layers import Dense, Dropout, Standardize
from tests.cuda_emulator.device import emulated_device
from tests.data.files import live_pickle, mutations


def network(**options):
    net = Network(
        [Standardize(), Dense(4, "gelu"), Dropout(0.5), Dense(3)], n_inputs=5, device="cpu", seed=3, **options
    )
    net.state["0.shift"][...] = np.arange(5)
    net.state["2.counter"][...] = 7
    return net


X = np.random.default_rng(0).normal(size=(50, 5))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def refused(path) -> str:
    with pytest.raises(DataError) as error:
        load(path, "cpu")
    assert str(path) in str(error.value)
    return str(error.value)


# What is saved comes back


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_comes_back_with_the_same_bits(path, dtype):
    net = network(dtype=dtype)
    save(net, path)
    read = load(path, "cpu")
    assert read.layers == net.layers
    assert (read.n_inputs, read.dtype, read.flat.n_decayed) == (net.n_inputs, net.dtype, net.flat.n_decayed)
    np.testing.assert_array_equal(read.flat_parameters, net.flat_parameters)
    for name, array in net.state.items():
        np.testing.assert_array_equal(read.state[name], array)
        assert read.state[name].dtype == array.dtype
    assert read.forward(X).tobytes() == net.forward(X).tobytes()


def test_another_process_computes_the_same_bits(path, tmp_path):
    net = network()
    save(net, path)
    np.save(tmp_path / "x.npy", X)
    program = (
        "import sys, numpy, gpu_nn\n"
        "net = gpu_nn.load(sys.argv[1], 'cpu')\n"
        "sys.stdout.buffer.write(net.forward(numpy.load(sys.argv[2])).tobytes())\n"
    )
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "x.npy")]
    done = subprocess.run(command, capture_output=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout == net.forward(X).tobytes()


@pytest.mark.parametrize(
    "classes",
    [None, ["a", "é", "日本\n"], [3, -1, 2**63], [False, True, 2], [0.5, 1.5, 2.5], np.array(["x", "y", "z"])],
    ids=str,
)
def test_names_of_classes_come_back(path, classes):
    net = network()
    net.classes = classes
    save(net, path)
    assert load(path, "cpu").classes == (classes.tolist() if isinstance(classes, np.ndarray) else classes)


def test_equal_models_are_equal_bytes_in_every_process(tmp_path):
    program = (
        "import sys, gpu_nn\n"
        "from gpu_nn import Dense, Dropout, Standardize\n"
        "net = gpu_nn.Network([Standardize(), Dense(4, 'gelu'), Dropout(0.5), Dense(3)], n_inputs=5, device='cpu')\n"
        "net.classes = ['a', 'é', 'c']\n"
        "gpu_nn.save(net, sys.argv[1])\n"
    )
    contents = set()
    for seed in ("0", "1", "2", "3"):  # safetensors' own order of three keys would be the same four times in 1 of 216
        command = [sys.executable, "-c", program, str(tmp_path / seed)]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1], env={**os.environ, "PYTHONHASHSEED": seed})
        contents.add((tmp_path / seed).read_bytes())
    assert len(contents) == 1
    save(load(tmp_path / "0", "cpu"), tmp_path / "again")
    assert contents == {(tmp_path / "again").read_bytes()}


def test_fields_of_layers_may_be_numbers_of_numpy(path):
    save(Network([Dense(np.int64(4)), Dropout(np.float32(0.5)), Dense(3)], n_inputs=5, device="cpu"), path)
    assert load(path, "cpu").layers == (Dense(4), Dropout(0.5), Dense(3))


@pytest.mark.parametrize("there_and_back", [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_file_opens_on_another_device(path, there_and_back):
    written_on, read_on = there_and_back
    with emulated_device():
        layers = [Standardize(), Dense(4, "gelu"), Dropout(0.5), Dense(3)]
        net = Network(layers, n_inputs=5, device=written_on, seed=3)
        net.state["0.shift"][...] = net.device.asarray(np.arange(5), net.dtype)
        net.loss_and_grad(X, np.arange(50) % 3)  # a forward pass that dropout counts
        save(net, path)
        read = load(path, read_on)
        assert (net.device.kind, read.device.kind) == there_and_back
        for name, array in {**net.parameters, **net.state}.items():
            np.testing.assert_array_equal(
                read.device.to_host({**read.parameters, **read.state}[name]), net.device.to_host(array)
            )
        assert read.device.to_host(read.state["2.counter"])[0] == 1
        ours, theirs = (either.device.to_host(either.predict_proba(X)) for either in (net, read))
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-7)


# What could not be read again is not written


@pytest.mark.parametrize(
    "classes", [["a", "b"], ["a", "a", "b"], ["a", "b", 3], [b"a", b"b", b"c"], [["a"], ["b"], ["c"]]], ids=str
)
def test_classes_that_do_not_fit_are_not_saved(path, classes):
    net = network()
    net.classes = classes
    with pytest.raises(ValueError, match="classes"):
        save(net, path)
    assert os.listdir(path.parent) == []


def test_parameters_that_are_not_finite_are_not_saved(path):
    net = network()
    net.parameters["1.weight"][2, 1] = np.nan
    with pytest.raises(ValueError, match=r"array 1\.weight has NaN or infinite values"):
        save(net, path)
    assert os.listdir(path.parent) == []


# Files that are no models


def test_a_missing_file_and_a_folder_are_named(path):
    assert "does not exist" in refused(path)
    assert "is a folder; expected a file, such as" in refused(path.parent)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(path, keep):
    save(network(), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert "is not a whole safetensors file" in refused(path)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"PK\x03\x04" + bytes(100), id="zip"),
        pytest.param(b"\x89HDF\r\n\x1a\n" + bytes(100), id="hdf5"),
        pytest.param(struct.pack("<Q", 2**63) + b"{}", id="header of exabytes"),
        pytest.param(struct.pack("<Q", 2) + b"[]", id="header of another kind"),
        pytest.param(struct.pack("<Q", 90_000) + b'{"a":' * 18_000, id="deep header"),
        pytest.param(
            (lambda text: struct.pack("<Q", len(text)) + text)(
                b'{"a":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,8]}}'
            ),
            id="array beyond 64 bits",
        ),
        pytest.param(
            (lambda text: struct.pack("<Q", len(text)) + text)(
                b'{"a":{"dtype":"F32","shape":[274877906944],"data_offsets":[0,1099511627776]}}'
            ),
            id="array of a terabyte",
        ),
    ],
)
def test_a_foreign_or_lying_file_is_refused(path, content):
    path.write_bytes(content)
    assert "is not a whole safetensors file" in refused(path)


def test_a_pickle_is_refused_and_never_unpickled(path):
    sign = path.parent / "sign"
    path.write_bytes(live_pickle(sign))
    refused(path)
    path.write_bytes(pickle.dumps(network().flat_parameters))
    refused(path)
    assert not sign.exists()


def test_a_safetensors_file_of_another_library_is_refused(path):
    save_file({"weight": np.zeros(3, np.float32)}, path)
    assert "not one that gpu_nn wrote" in refused(path)
    save_file({"weight": np.zeros(3, np.float32)}, path, {"format": "pt"})
    assert "not one that gpu_nn wrote" in refused(path)


def test_changed_bytes_are_read_or_refused_and_nothing_else(path):
    save(network(), path)
    for content in mutations(path.read_bytes(), 300):
        path.write_bytes(content)
        try:
            load(path, "cpu")
        except DataError:
            continue


# The device is not the file's fault


def test_the_device_is_asked_for_before_the_file(path, monkeypatch):
    monkeypatch.setattr(device, "cuda_unavailable_reason", lambda: "there is none")
    with pytest.raises(DeviceError, match="there is none"):
        load(path, "cuda")
    with pytest.raises(ValueError, match="is not one of auto, cpu, cuda, cuda:1") as error:
        load(path, "gpu")
    assert not isinstance(error.value, DataError)


def test_names_of_columns_are_kept_and_files_without_any_have_none(tmp_path):
    net = Network([2, 3], device="cpu")
    save(net, tmp_path / "without")
    net.feature_names, net.target_name = np.array(["été", "a\nb"]), "y"
    save(net, tmp_path / "with")
    found = load(tmp_path / "with", device="cpu")
    assert (found.feature_names, found.target_name) == (["été", "a\nb"], "y")
    found.feature_names = found.target_name = None
    save(found, tmp_path / "again")
    # What knows no names is written as it was before there were any.
    assert (tmp_path / "again").read_bytes() == (tmp_path / "without").read_bytes()
    assert b"_name" not in (tmp_path / "without").read_bytes()


@pytest.mark.parametrize(
    ("names", "target", "message"),
    [
        (["a"], None, "feature_names has 1 names, 1 different; expected 2"),
        (["a", "a"], None, "feature_names has 2 names, 1 different; expected 2"),
        (["a", "b"], 3, "target_name=3; expected a name"),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path, names, target, message):
    net = Network([2, 3], device="cpu")
    net.feature_names, net.target_name = names, target
    with pytest.raises(ValueError, match=message):
        save(net, tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong", [MLPClassifier(), {"0.weight": np.zeros((2, 2))}, None], ids=["classifier", "dict", "none"]
)
@pytest.mark.parametrize("write", [save, export_onnx])
def test_what_is_no_network_is_refused_and_a_classifiers_is_named(tmp_path, write, wrong):
    if write is export_onnx:
        pytest.importorskip("onnx")
    with pytest.raises(TypeError, match=r"is no Network, .* a fitted classifier has it as \.net_"):
        write(wrong, tmp_path / "model")
    assert not list(tmp_path.iterdir())
