"""Neural-network classifiers trained with an exact all-but-one softmax cross entropy, on NVIDIA GPUs or on the CPU.

    from gpu_nn import functional as F          # the mathematics
    net = gpu_nn.Network([784, 256, 10])        # a network
    gpu_nn.Trainer(net, gpu_nn.Adam(1e-3)).fit(x, y, epochs=10)

Each name is imported at its first use: `import gpu_nn` loads neither CuPy nor scikit-learn.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "functional": "gpu_nn.functional",
    "plots": "gpu_nn.plots",
    "layers": "gpu_nn.layers",
    "schedules": "gpu_nn.schedules",
    "Network": "gpu_nn.network",
    "SGD": "gpu_nn.optimizers",
    "Adam": "gpu_nn.optimizers",
    "AdamW": "gpu_nn.optimizers",
    "MLPClassifier": "gpu_nn.estimator",
    "from_sklearn": "gpu_nn.estimator",
    "Trainer": "gpu_nn.training",
    "History": "gpu_nn.training",
    "save": "gpu_nn.model_file",
    "load": "gpu_nn.model_file",
    "export_onnx": "gpu_nn.onnx_file",
    "Dense": "gpu_nn.layers",
    "LayerNorm": "gpu_nn.layers",
    "BatchNorm": "gpu_nn.layers",
    "Dropout": "gpu_nn.layers",
    "InputNoise": "gpu_nn.layers",
    "Standardize": "gpu_nn.layers",
    "DataError": "gpu_nn.errors",
    "DeviceError": "gpu_nn.errors",
    "OutOfDeviceMemory": "gpu_nn.errors",
    "TrainingDiverged": "gpu_nn.errors",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'gpu_nn' has no attribute {name!r}")
    module = import_module(_MODULES[name])
    return module if module.__name__ == f"gpu_nn.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
