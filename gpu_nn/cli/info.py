"""gpu-nn info"""

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gpu_nn import __version__
from gpu_nn.cli.results import print_json
from gpu_nn.device import resolve_device, why_no_cuda
from gpu_nn.kernels import why_no_half_products
from gpu_nn.precision import DTYPES, PRECISIONS

_PACKAGES = ("numpy", "scipy", "scikit-learn", "safetensors", "cupy-cuda12x", "cupy-cuda13x", "nvmath-python")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> None:
    facts = collect()
    if options.json:
        print_json(facts)
        return
    print(f"gpu_nn {facts['gpu_nn']}, Python {facts['python']}")
    for name, found in facts["packages"].items():
        print(f"{name} {found or 'not installed'}")
    for gpu in facts["gpus"]:
        print(f"{gpu['device']}: {gpu['name']}, {gpu['memory_bytes'] / 2**30:.0f} GiB, sm_{gpu['compute_capability']}")
    print(f"auto chooses {facts['auto']}, which computes in {', '.join(facts['dtypes'])}")


def collect() -> dict[str, Any]:
    """What `gpu-nn info` prints."""
    auto = resolve_device("auto")
    return {
        "gpu_nn": __version__,
        "python": platform.python_version(),
        "packages": {name: _installed(name) for name in _PACKAGES},
        "gpus": [] if why_no_cuda() else _gpus(),
        "auto": str(auto),
        "dtypes": [name for name in PRECISIONS if name in DTYPES or not why_no_half_products(auto)],
    }


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpus() -> list[dict[str, Any]]:
    import cupy

    found = []
    for index in range(cupy.cuda.runtime.getDeviceCount()):
        properties = cupy.cuda.runtime.getDeviceProperties(index)
        found.append(
            {
                "device": f"cuda:{index}",
                "name": properties["name"].decode(),
                "memory_bytes": properties["totalGlobalMem"],
                "compute_capability": f"{properties['major']}{properties['minor']}",
            }
        )
    return found
