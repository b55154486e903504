"""Properties of every figure."""

import subprocess
import sys

import numpy as np
import pytest

from gpu_nn import plots
from gpu_nn.training import EpochRecord, History
from tests.cuda_emulator.device import emulated_device

HISTORY = History([EpochRecord(1, 10, 1.0, None, None, 0.1, 1.0)])
P = np.array([[0.9, 0.1], [0.2, 0.8]])
DRAW = {
    "learning_curves": lambda: plots.learning_curves(HISTORY),
    "learning_rates": lambda: plots.learning_rates(HISTORY),
    "confusion_matrix": lambda: plots.confusion_matrix([0, 1], [0, 0]),
    "calibration": lambda: plots.calibration([0, 1], P),
    "worst_mistakes": lambda: plots.worst_mistakes(np.zeros((2, 4)), [1, 1], P),
}


@pytest.mark.parametrize("name", DRAW)
def test_figures_are_not_registered_with_pyplot(name):
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    before = dict(rcParams)
    assert isinstance(DRAW[name](), Figure)
    assert dict(rcParams) == before


def test_drawing_never_imports_pyplot():
    code = (
        "import sys, io, numpy as np; from gpu_nn import plots as p;"
        "f = p.calibration([0, 1], [[.9, .1], [.2, .8]]); f.savefig(io.BytesIO());"
        "f = p.confusion_matrix([0, 1], [0, 0]); f.savefig(io.BytesIO());"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", DRAW)
def test_without_matplotlib_the_extra_is_named(name, monkeypatch):
    for module in [module for module in sys.modules if module.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"plots need Matplotlib: pip install 'gpu_nn\[plot\]'"):
        DRAW[name]()


def test_arrays_of_a_gpu_are_answers():
    with emulated_device() as device:
        p, y, x = device.asarray(P), device.asarray(np.array([1, 1])), device.asarray(np.zeros((2, 4)))
        with pytest.raises(TypeError):
            np.asarray(p)
        on_gpu = plots.expected_calibration_error(y, p)
        plots.confusion_matrix(y, y)
        plots.worst_mistakes(x, y, p)
    assert on_gpu == plots.expected_calibration_error([1, 1], P)
