"""Configurations, models and checkpoints: valid ones, and random ones with a false header."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import gpu_nn
from gpu_nn.layers import LAYERS, BatchNorm, Dense, Dropout, Standardize
from gpu_nn.multilabel import Multilabel
from gpu_nn.training import checkpoint
from tests.fuzz.mutations import extreme, size


def configuration() -> list[bytes]:
    text = """# a run
data = "x.npy"
target = "y.npy"
hidden = [64, 32]
dropout = 0.25
epochs = 3
batch-size = 16
optimizer = "adamw"
lr = 1e-3
log = ["a.csv", "b.jsonl"]
checkpoint-every = "30s"
"""
    return [text.encode(), b'device = "cpu"\nhidden = []\nseed = 7\ndtype = "float64"\nearly-stopping = 5\n']


def malformed_configuration(random: Random) -> bytes:
    keys = (
        *("data", "target", "hidden", "epochs", "batch-size", "lr", "log", "device", "seed", "dropout", "activation"),
        *("checkpoint-every", "out", "resume", "config", "help", "epoch", '""', '"\\n"', "a.b", "x" * 3000, "é"),
    )
    values = (
        *("1", "-1", "0.5", "1e-3", "nan", "-inf", "true", "[]", "[1, 2]", '["a", 1]', "{}", "{a = 1}", "1979-05-27"),
        *('""', '"a"', '"--out"', '"30s"', '"\\u0000"', '"\\u001b[31m"', '"\\n"', "'''\na\nb'''", "0x7f", "1_000"),
        *("[" * 2000, "[" * 500 + "]" * 500, "9" * 400, "9" * 5000, '"' + "x" * 9000 + '"', "[[1], [2]]", '"1' * 40),
    )
    lines = [f"{random.choice(keys)} = {random.choice(values)}" for _ in range(random.randrange(6))]
    if random.random() < 0.2:
        lines.insert(random.randrange(len(lines) + 1), random.choice(("[a]", "[[a]]", "a" + ".a" * 3000 + " = 1")))
    return "\n".join(lines).encode()


def model() -> list[bytes]:
    layers = [Standardize(), Dense(4, "gelu", bias=False), BatchNorm("gelu"), Dropout(0.5), Dense(3)]
    deep = gpu_nn.Network(layers, n_inputs=5, device="cpu", dtype="float64", seed=3)
    deep.classes = ["a", "é", "c"]
    several = gpu_nn.Network([3, 4, 3], device="cpu", seed=0)
    several.multilabel, several.classes = Multilabel(0.5), ["a", "b"]
    return [_saved(gpu_nn.Network([3, 4, 2], device="cpu", seed=0)), _saved(deep), _saved(several)]


def malformed_model(random: Random) -> bytes:
    names = (*LAYERS, "Conv", "", "units")
    fields = ("units", "activation", "rate", "bias", "epsilon", "momentum", "deviation")
    layers: Any = [
        {
            "layer": random.choice(names),
            **{random.choice(fields): odd_value(random) for _ in range(random.randrange(3))},
        }
        for _ in range(random.choice((0, 1, 2, 3, 500)))
    ]
    if random.random() < 0.5:
        layers = [{"layer": "Dense", "units": extreme(random)}, {"layer": "Dense", "units": odd_value(random)}]
    network = {"n_inputs": random.choice((3, extreme(random))), "dtype": "float32", "layers": layers, "classes": None}
    version = random.choice(("1", "1", "2"))
    if version == "2":
        network["several_labels"] = random.choice(({"complement_weight": odd_value(random)}, odd_value(random)))
    if random.random() < 0.5:
        network[random.choice(tuple(network))] = odd_value(random)
    metadata = {"format": "gpu_nn.network", "version": version, "network": json.dumps(network)}
    return _safetensors(random, metadata, ("0.weight", "0.bias", "1.weight", "1.bias"))


_TRAINING = {"settings": {"a": 1}, "position": {"steps": 2}, "history": [], "random": {"state": 2**64 - 1}}
_STATE: dict[str, np.ndarray] = {
    "network.parameters": np.linspace(0, 1, 20, dtype=np.float32),
    "losses": np.zeros(0),
    "best": np.eye(3),
}


def whole_checkpoint(steps: int) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / checkpoint.file_name(steps)
        checkpoint.write(path, {**_TRAINING, "position": {"steps": steps}}, _STATE)
        return path.read_bytes()


def malformed_checkpoint(random: Random) -> bytes:
    text = random.choice((json.dumps(_TRAINING), "[" * 50_000, "{", "[]", "9" * 5000, json.dumps(odd_value(random))))
    metadata = {"format": "gpu_nn.checkpoint", "version": "1", "training": text, "checksum": "0" * 64}
    if random.random() < 0.5:
        del metadata[random.choice(tuple(metadata))]
    return _safetensors(random, metadata, tuple(_STATE))


def _safetensors(random: Random, metadata: dict[str, str], names: Sequence[str]) -> bytes:
    """A safetensors file whose offsets may be wrong."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in random.sample(names, random.randrange(len(names) + 1)):
        shape = [size(random) for _ in range(random.choice((0, 1, 2, 2, 60)))]
        start, end = end, end + random.choice((0, 12, 24, extreme(random) if random.random() < 0.2 else 48))
        kind = random.choice(("F32", "F32", "F64", "U64", "BF16", "F8_E4M3", "BOOL", "C64", "X"))
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    length = extreme(random) if random.random() < 0.1 else len(text)
    return struct.pack("<Q", length % 2**64) + text + bytes(min(end, 1 << 12))


def odd_value(random: Random) -> Any:
    """A JSON value of an unexpected type or size."""
    odd: tuple[Any, ...] = (None, True, False, -1, 0.5, float("nan"), float("inf"))
    odd += ("", "relu", "x" * 3000, "a\nb\x1b[31m", [], {}, [[]])
    return random.choice((extreme(random), -extreme(random), 10**400, [1, 2], ["a", "a"], {"a": 1}, *odd))


def _saved(net: gpu_nn.Network) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        gpu_nn.save(net, path)
        return path.read_bytes()
