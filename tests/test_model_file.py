import json
import os
import pickle
import re
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gpu_nn import DataError, DeviceError, Network, device, load, save
from gpu_nn import model_file as module
from gpu_nn.layers import Dense, Dropout, Standardize
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


@pytest.fixture
def rewritten(path):
    """Writes a good model, with its network's header or its arrays changed, and gives the path."""

    def rewritten(header=None, metadata=None, arrays=None, drop=()):
        save(network(), path)
        stored = {**load_file(path), **(arrays or {})}
        said = {
            "n_inputs": 5,
            "dtype": "float32",
            "layers": [
                {"layer": "Standardize"},
                {"layer": "Dense", "units": 4, "activation": "gelu"},
                {"layer": "Dropout", "rate": 0.5},
                {"layer": "Dense", "units": 3, "activation": "identity"},
            ],
            "classes": None,
        }
        text = header if isinstance(header, str) else json.dumps({**said, **(header or {})})
        whole = {"format": "gpu_nn.network", "version": "1", "network": text, **(metadata or {})}
        save_file(
            {name: array for name, array in stored.items() if name not in drop},
            path,
            {name: value for name, value in whole.items() if value is not None},
        )
        return path

    return rewritten


@contextmanager
def edited_header(path):
    """The header of a model file's network, written back when the block ends."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    whole, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    header = json.loads(whole["__metadata__"]["network"])
    yield header
    whole["__metadata__"]["network"] = json.dumps(header)
    text = json.dumps(whole).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


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
    assert (read.n_inputs, read.dtype, read.n_decayed) == (net.n_inputs, net.dtype, net.n_decayed)
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


def test_a_rewritten_file_is_a_good_one_when_nothing_is_changed(rewritten):
    assert load(rewritten(), "cpu").forward(X).tobytes() == network().forward(X).tobytes()


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


# Writing is whole or not at all


def test_a_full_disk_leaves_the_old_file_whole_and_no_other(path, monkeypatch):
    save(network(), path)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*model\.safetensors: No space left on device"):
        save(network(dtype="float64"), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["model.safetensors"]


def test_a_write_that_stops_half_way_leaves_the_old_file_whole_and_no_other(path):
    resource = pytest.importorskip("resource")
    save(network(), path)
    before = path.read_bytes()
    big = Network([300, 300, 2], device="cpu")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write .*model\.safetensors: File too large"):
            save(big, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["model.safetensors"]


def test_an_interruption_leaves_the_old_file_whole_and_no_other(path, monkeypatch):
    save(network(), path)
    before = path.read_bytes()

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(network(dtype="float64"), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["model.safetensors"]


def test_a_place_that_cannot_be_written_is_named(path):
    path.mkdir()
    with pytest.raises(DataError, match=r"cannot write .*model\.safetensors: Is a directory"):
        save(network(), path)
    (path.parent / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write .*: Not a directory"):
        save(network(), path.parent / "file" / "model.safetensors")
    with pytest.raises(DataError, match=r"cannot write .*: No such file or directory"):
        save(network(), path.parent / "gone" / "model.safetensors")
    assert sorted(os.listdir(path.parent)) == ["file", "model.safetensors"]


def test_a_saved_file_has_the_permissions_of_any_other(path):
    (path.parent / "other").touch()
    save(network(), path)
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode


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


# Headers that do not fit


@pytest.mark.parametrize("version", ["2", "0", "", "1.0", None])
def test_another_version_is_refused_with_the_cure(rewritten, version):
    message = refused(rewritten(metadata={"version": version}))
    assert "this gpu_nn reads version 1: upgrade gpu_nn" in message


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "Expecting value"),
        ("[]", "list indices"),
        ("null", "not subscriptable"),
        (DEEP, "recursion"),
        ("{}", "'layers' is missing"),
        ({"n_inputs": 0}, "n_inputs is 0, expected a whole number ≥ 1"),
        ({"n_inputs": -5}, "n_inputs is -5"),
        ({"n_inputs": 5.0}, "n_inputs is 5.0"),
        ({"n_inputs": True}, "n_inputs is True"),
        ({"n_inputs": "5"}, "n_inputs is '5'"),
        ({"n_inputs": None}, "n_inputs is None"),
        ({"n_inputs": 6}, "array 0.scale is (5,) of float32, the header says (6,) of float32"),
        ({"n_inputs": 10**30}, "does not fit its header"),
        ({"dtype": "float16"}, "dtype 'float16' is not one of float32, float64"),
        ({"dtype": ["float32"]}, "dtype"),
        ({"dtype": None}, "dtype None"),
        ({"dtype": "float64"}, "is (5,) of float32, the header says (5,) of float64"),
        ({"layers": []}, "array 0.scale is (5,) of float32, the header says absent"),
        ({"layers": None}, "makes no network"),
        ({"layers": "Dense"}, "makes no network"),
        ({"layers": [3]}, "makes no network"),
        ({"layers": [{}]}, "'layer' is missing"),
        ({"layers": [{"layer": "Conv"}]}, "layer 'Conv' is not one of Dense, Dropout, Standardize"),
        ({"layers": [{"layer": ["Dense"]}]}, "makes no network"),
        ({"layers": [{"layer": "Dense"}]}, "units"),
        ({"layers": [{"layer": "Dense", "units": 0}]}, "units=0"),
        ({"layers": [{"layer": "Dense", "units": -1}]}, "units=-1"),
        ({"layers": [{"layer": "Dense", "units": 3.0}]}, "units=3.0"),
        ({"layers": [{"layer": "Dense", "units": "3"}]}, "units='3'"),
        ({"layers": [{"layer": "Dense", "units": 10**30}]}, "does not fit its header"),
        ({"layers": [{"layer": "Dense", "units": 2**40}, {"layer": "Dense", "units": 2**40}]}, "does not fit"),
        ({"layers": [{"layer": "Dense", "units": 3, "activation": "rellu"}]}, "Did you mean 'relu'?"),
        ({"layers": [{"layer": "Dense", "units": 3, "activation": []}]}, "makes no network"),
        ({"layers": [{"layer": "Dense", "units": 3, "path": "/"}]}, "unexpected keyword argument 'path'"),
        ({"layers": [{"layer": "Dense", "units": 3, "__class__": 1}]}, "makes no network"),
        ({"layers": [{"layer": "Dropout", "rate": "half"}]}, "makes no network"),
        ({"layers": [{"layer": "Dropout", "rate": 2}]}, "rate=2"),
        ({"layers": [{"layer": "Dropout", "rate": float("nan")}]}, "rate=nan"),
        ({"layers": [{"layer": "Standardize"}] * 1000}, "does not fit its header"),
        ({"classes": ["a", "b"]}, "classes has 2 names, 2 different; expected 3"),
        ({"classes": ["a", "b", "a"]}, "classes has 3 names, 2 different; expected 3"),
        ({"classes": ["a", "b", 3]}, "expected a list of names or a list of numbers"),
        ({"classes": ["a", "b", None]}, "expected a list of names or a list of numbers"),
        ({"classes": ["a", "b", ["c"]]}, "expected a list of names or a list of numbers"),
        ({"classes": "abc"}, "expected a list of names or a list of numbers"),
        ({"classes": {"a": 0, "b": 1, "c": 2}}, "expected a list of names or a list of numbers"),
        ({"classes": 3}, "expected a list of names or a list of numbers"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_header_that_makes_no_network_is_refused(rewritten, header, message):
    assert message in refused(rewritten(header))


def test_a_header_without_the_network_is_refused(rewritten):
    assert "'network' is missing" in refused(rewritten(metadata={"network": None}))


@pytest.mark.parametrize("field", ["n_inputs", "dtype", "layers", "classes"])
def test_a_header_with_a_field_missing_is_refused(rewritten, field):
    path = rewritten()
    with edited_header(path) as header:
        del header[field]
    assert f"{field!r} is missing" in refused(path)


@pytest.mark.parametrize(
    ("layers", "arrays", "message"),
    [
        ([], {}, r"layers=\[\]"),
        ([{"layer": "Dense", "units": 1}], {"0.weight": (5, 1), "0.bias": (1,)}, "at least 2 classes"),
    ],
    ids=["no layer", "one class"],
)
def test_a_header_that_fits_its_arrays_but_classifies_nothing_is_refused(path, layers, arrays, message):
    header = {"n_inputs": 5, "dtype": "float32", "layers": layers, "classes": None}
    metadata = {"format": "gpu_nn.network", "version": "1", "network": json.dumps(header)}
    save_file({name: np.zeros(shape, np.float32) for name, shape in arrays.items()}, path, metadata)
    assert re.search(message, refused(path))


WEIGHT = np.zeros((5, 4), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrays": {"9.weight": WEIGHT}}, "array 9.weight is (5, 4) of float32, the header says absent"),
        ({"drop": ["1.weight"]}, "array 1.weight is absent, the header says (5, 4) of float32"),
        ({"drop": ["2.counter"]}, "array 2.counter is absent, the header says (1,) of uint64"),
        ({"arrays": {"1.weight": WEIGHT.T.copy()}}, "array 1.weight is (4, 5) of float32, the header says (5, 4)"),
        ({"arrays": {"1.weight": WEIGHT.ravel()}}, "array 1.weight is (20,)"),
        ({"arrays": {"1.weight": WEIGHT.astype(np.float64)}}, "(5, 4) of float64, the header says (5, 4) of float32"),
        ({"arrays": {"1.weight": WEIGHT.astype(np.float16)}}, "array 1.weight is (5, 4) of F16"),
        ({"arrays": {"1.weight": WEIGHT.astype(np.int8)}}, "array 1.weight is (5, 4) of I8"),
        ({"arrays": {"2.counter": np.zeros(1, np.float32)}}, "array 2.counter is (1,) of float32"),
        ({"arrays": {"1.weight": WEIGHT + np.nan}}, "array 1.weight has NaN or infinite values"),
        ({"arrays": {"0.scale": np.full(5, np.inf, np.float32)}}, "array 0.scale has NaN or infinite values"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_arrays_that_are_not_the_headers_are_refused(rewritten, changes, message):
    assert message in refused(rewritten(**changes))


# The device is not the file's fault


def test_the_device_is_asked_for_before_the_file(path, monkeypatch):
    monkeypatch.setattr(device, "why_no_cuda", lambda: "there is none")
    with pytest.raises(DeviceError, match="there is none"):
        load(path, "cuda")
    with pytest.raises(ValueError, match="is not one of auto, cpu, cuda, cuda:1") as error:
        load(path, "gpu")
    assert not isinstance(error.value, DataError)
