"""What is installed: the wheel carries the CUDA sources, and the code finds them there and in a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_importing_gpu_nn_loads_neither_cupy_nor_scikit_learn():
    code = (
        "import sys, gpu_nn; print([m for m in ('cupy', 'sklearn', 'scipy', 'matplotlib', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_imported():
    import gpu_nn

    assert all(getattr(gpu_nn, name) is not None for name in gpu_nn.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Netwrok'"):
        _ = gpu_nn.Netwrok


def test_the_version_is_the_one_of_the_project_file():
    import tomllib

    import gpu_nn

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == gpu_nn.__version__


@pytest.mark.slow
def test_a_wheel_carries_the_cuda_sources_and_finds_them(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, ROOT], check=True)
    wheel = next(tmp_path.glob("gpu_nn-*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    sources = {path.name for path in (ROOT / "cuda_src").iterdir()}
    assert {f"gpu_nn/cuda_src/{name}" for name in sources} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]

    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    code = "from gpu_nn.kernels.cuda_kernels.sources import source_folder; print(source_folder())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert Path(done.stdout.strip()) == site / "gpu_nn" / "cuda_src"


def test_the_container_is_built_from_what_the_wheel_is_made_of():
    """The build context is these files alone, so the wheel's own files must be among them."""
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == {"pyproject.toml", "README.md", "LICENSE", "gpu_nn", "cuda_src"}
    dockerfile = (ROOT / "Dockerfile").read_text().splitlines()
    first, second = [line for line in dockerfile if line and not line.startswith("#")][:2]
    assert first.startswith("ARG BASE_IMAGE=")
    assert second.startswith("FROM ${BASE_IMAGE}")
    assert "USER gpu_nn" in dockerfile
