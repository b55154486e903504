"""Nothing heavy is imported before it is needed: the package and the command's help come at once."""

import json
import subprocess
import sys

import pytest

from gpu_nn.cli import _COMMANDS

HEAVY = (
    *("sklearn", "scipy", "pandas", "matplotlib", "pyarrow", "onnx", "tensorboard", "torch"),
    *("cupy", "nvmath", "ml_dtypes", "mpi4py"),
)
LOADED = "print(json.dumps([name for name in sys.modules if '.' not in name]))"


def loaded_after(code: str) -> list[str]:
    """The top-level modules that a new Python holds after `code`."""
    command = [sys.executable, "-c", f"import json, sys\n{code}\n{LOADED}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def of_the_command(*arguments: str) -> str:
    return f"""
sys.argv = ["gpu-nn", *{arguments!r}]
try:
    from gpu_nn.cli import main
    main()
except SystemExit as end:
    assert not end.code
"""


def test_the_list_sees_what_is_loaded():
    assert "sklearn" in loaded_after("from gpu_nn import MLPClassifier")


@pytest.mark.parametrize(
    "code",
    [
        "import gpu_nn",
        "from gpu_nn import functional",
        "from gpu_nn import Network, Adam, Trainer",
        "from gpu_nn import distributed",
        of_the_command("--help"),
        *(of_the_command(name, "--help") for name in _COMMANDS),
    ],
    ids=["gpu_nn", "functional", "training", "distributed", "help", *_COMMANDS],
)
def test_no_heavy_module_is_loaded(code):
    loaded = loaded_after(code)
    assert "gpu_nn" in loaded
    assert not set(HEAVY) & set(loaded)


@pytest.mark.parametrize("code", ["import gpu_nn", of_the_command("--help")], ids=["gpu_nn", "help"])
def test_numpy_waits_until_there_is_something_to_compute(code):
    assert "numpy" not in loaded_after(code)
