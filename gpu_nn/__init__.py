"""Neural-network classifiers trained with an exact all-but-one softmax cross entropy, on NVIDIA GPUs or on the CPU.

    from gpu_nn import functional as F          # the mathematics
    net = gpu_nn.Network([784, 256, 10])        # a network
    gpu_nn.Trainer(net, gpu_nn.Adam(1e-3)).fit(x, y, epochs=10)

Each name is imported at its first use: `import gpu_nn` loads neither CuPy nor scikit-learn.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_SUBMODULES = ("functional", "layers", "plots", "schedules")
_NAMES = {
    "errors": ("DataError", "DeviceError", "OutOfDeviceMemory", "TrainingDiverged"),
    "estimator": ("MLPClassifier", "from_sklearn"),
    "layers": ("BatchNorm", "Dense", "Dropout", "InputNoise", "LayerNorm", "Standardize"),
    "model_file": ("load", "save"),
    "network": ("Network",),
    "onnx_file": ("export_onnx",),
    "optimizers": ("Adam", "AdamW", "SGD"),
    "training": ("History", "Trainer"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *_SUBMODULES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"gpu_nn.{name}")
    if name in _MODULES:
        return getattr(import_module(f"gpu_nn.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'gpu_nn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
