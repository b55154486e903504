"""What is installed: the wheel and the sdist carry all files, and the code finds the CUDA sources there and here.

`python -m tests.installed` runs all tests on what is installed.
"""

import json
import os
import pickle
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gpu_nn import MLPClassifier, load, save
from gpu_nn.data import digits
from tests.installed import PIP, ROOT, built, install, new_environment, unpacked


def test_importing_gpu_nn_loads_neither_cupy_nor_scikit_learn():
    code = (
        "import sys, gpu_nn; "
        "print([m for m in ('cupy', 'sklearn', 'scipy', 'matplotlib', 'torch', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("modules", "problem"),
    [
        ("{'torch': None}", "PyTorch is not installed"),
        ("{name: ModuleType(name) for name in ('torch', 'torch.library')}", "this PyTorch is too old"),
    ],
)
def test_gpu_nn_torch_without_pytorch_is_one_error_with_the_hint(modules, problem):
    code = (
        "import sys; from types import ModuleType\n"
        f"sys.modules.update({modules})\n"
        "try: import gpu_nn.torch\n"
        "except ImportError as error: print(error.name, error.__context__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.startswith(f"torch None gpu_nn.torch needs PyTorch 2.6 or newer, but {problem}: ")
    assert "pip install 'gpu_nn[torch]'" in done.stdout


def test_every_public_name_can_be_imported():
    import gpu_nn

    assert all(getattr(gpu_nn, name) is not None for name in gpu_nn.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Netwrok'"):
        _ = gpu_nn.Netwrok


def test_the_version_is_the_one_of_the_project_file():
    import gpu_nn

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == gpu_nn.__version__


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """The sdist and the wheel."""
    return built(tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="module")
def wheel(releases):
    return releases[1]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The programs of a new environment that holds the wheel, and sees what else is installed here but not gpu_nn."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    install(new_environment(folder), "--no-deps", wheel)
    site = next(folder.glob("lib/python*/site-packages"))
    # A path in a .pth file is looked in, but the .pth files there, an editable gpu_nn's among them, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(program, *arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [folder / "bin" / program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.mark.slow
def test_a_wheel_carries_the_cuda_sources_and_finds_them(wheel, installed):
    names = zipfile.ZipFile(wheel).namelist()
    sources = {path.name for path in (ROOT / "cuda_src").iterdir()}
    assert {f"gpu_nn/cuda_src/{name}" for name in sources} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    code = "from gpu_nn.kernels.cuda_kernels.sources import source_folder; print(source_folder())"
    folder = Path(installed("python", "-c", code))
    assert folder.name == "cuda_src"
    assert ROOT not in folder.parents


def files_of(*folders):
    """Every file below these of the checkout, but what Python, tools and editors leave."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(ROOT)) for path in paths if not {"__pycache__"} & set(path.parts)}


@pytest.mark.slow
def test_an_sdist_carries_every_file_and_makes_the_same_wheel(releases, tmp_path):
    sdist, wheel = releases
    folder = unpacked(sdist, tmp_path)
    alone = {".ci/run", ".dockerignore", ".gitignore", "Dockerfile", "LICENSE", "README.md", "pyproject.toml"}
    expected = alone | files_of("gpu_nn", "cuda_src", "tests", "benchmarks")
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == expected | {"PKG-INFO"}
    assert all((folder / name).read_bytes() == (ROOT / name).read_bytes() for name in expected)
    subprocess.run([*PIP, "wheel", "--no-deps", "-w", tmp_path / "again", sdist], check=True)
    one, other = (zipfile.ZipFile(path) for path in (wheel, tmp_path / "again" / wheel.name))
    assert one.namelist() == other.namelist()
    assert files_of("gpu_nn") <= set(one.namelist())
    assert all(one.read(name) == other.read(name) for name in one.namelist())


@pytest.mark.slow
def test_models_go_between_a_checkout_and_a_new_environment(installed, tmp_path):
    x, y = digits()
    np.savez(tmp_path / "x.npz", x=x[:100])
    np.save(tmp_path / "x.npy", x[:100])
    result = installed("gpu-nn", "train", "--epochs", 2, "--device", "cpu", "--out", tmp_path / "run", "--json")
    assert json.loads(result)["test_accuracy"] > 0.8
    there = load(tmp_path / "run" / "model.safetensors", "cpu")
    told = installed("gpu-nn", "predict", tmp_path / "run" / "model.safetensors", "--data", tmp_path / "x.npz")
    assert [int(label) for label in told.splitlines()] == there.predict(x[:100]).tolist()

    save(there, tmp_path / "again.safetensors")
    fitted = MLPClassifier((16,), max_iter=3, device="cpu", random_state=0, tol=10, n_iter_no_change=1).fit(x, y)
    (tmp_path / "classifier.pickle").write_bytes(pickle.dumps(fitted))
    program = (
        "import pickle, sys, numpy, gpu_nn\n"
        "x, model, pickled = numpy.load(sys.argv[1]), gpu_nn.load(sys.argv[2], 'cpu'), open(sys.argv[3], 'rb').read()\n"
        "classifier = pickle.loads(pickled)\n"
        "print(gpu_nn.__file__, model.forward(x).tobytes().hex(), classifier.predict_proba(x).tobytes().hex())\n"
    )
    arguments = [tmp_path / name for name in ("x.npy", "again.safetensors", "classifier.pickle")]
    home, logits, p = installed("python", "-c", program, *arguments).split()
    assert ROOT not in Path(home).parents
    assert bytes.fromhex(logits) == there.forward(x[:100]).tobytes()
    assert bytes.fromhex(p) == fitted.predict_proba(x[:100]).tobytes()


def test_the_container_is_built_from_what_the_wheel_is_made_of():
    """The build context is these files alone, so the wheel's own files must be among them."""
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == {"pyproject.toml", "README.md", "LICENSE", "gpu_nn", "cuda_src"}


@pytest.fixture(scope="module")
def stages():
    """The instructions before the first stage of the Dockerfile, and of each stage; continued lines as one."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    instructions = "\n".join(lines).replace("\\\n", " ").splitlines()
    begins = [0, *(i for i, line in enumerate(instructions) if line.startswith("FROM ")), len(instructions)]
    return [[" ".join(line.split()) for line in instructions[one:other]] for one, other in pairwise(begins)]


def test_the_image_holds_the_wheel_that_another_stage_built(stages):
    before, build, image = stages
    assert before == ["ARG BASE_IMAGE=python:3.12-slim"]
    assert (build[0], image[0]) == ("FROM ${BASE_IMAGE} AS wheel", "FROM ${BASE_IMAGE}")
    assert "COPY . ." in build
    assert [line for line in image if line.startswith("COPY")] == ["COPY --from=wheel /wheels /wheels"]


def test_the_extra_of_the_image_is_an_argument(stages):
    image = stages[2]
    assert "ARG EXTRA=cuda12x" in image
    install = next(line for line in image if "pip install" in line)
    assert "[plot,parquet${EXTRA:+,$EXTRA}]" in install
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    said = (ROOT / "Dockerfile").read_text() + (ROOT / "README.md").read_text()
    asked = [name for value in re.findall(r"EXTRA=([a-z][\w,]*)", said) for name in value.split(",")]
    assert {"cuda12x", "cuda13x", "nvmath12", "nccl12"} <= set(asked) <= set(extras)


def test_the_image_runs_the_command_as_any_user_and_says_whether_it_is_well(stages):
    image = stages[2]
    assert image[-3:-1] == [
        'HEALTHCHECK --interval=5m --timeout=30s CMD ["gpu-nn", "info"]',
        'ENTRYPOINT ["gpu-nn"]',
    ]
    assert image.index("USER gpu_nn") > next(i for i, line in enumerate(image) if "useradd" in line)
    kernels = re.search(r"CUPY_CACHE_DIR=(\S+)", " ".join(image))[1]
    assert f"mkdir -m 1777 {kernels}" in " ".join(image)


@pytest.mark.parametrize(("version", "refused"), [("3.10.12", True), ("3.11.0", False), ("3.14.1", False)])
def test_a_base_whose_python_is_too_old_is_refused_before_anything_is_built(stages, version, refused):
    build = stages[1]
    (check,) = [line for line in build if "version_info" in line]
    assert build.index(check) < build.index("COPY . .")
    code = check.removeprefix("RUN python3 -c ").strip("'")
    numbers = tuple(map(int, version.split(".")))
    cupy_override = f"import sys; sys.version_info, sys.version = {numbers}, {version!r}\n"
    done = subprocess.run([sys.executable, "-c", cupy_override + code], capture_output=True, text=True, check=False)
    told = f"gpu_nn needs Python 3.11 or newer; this base has {version}: choose another BASE_IMAGE\n"
    assert (done.returncode, done.stderr) == ((1, told) if refused else (0, ""))
