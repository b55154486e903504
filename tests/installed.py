"""Runs the tests on the package as users install it: ``python -m tests.installed wheel|sdist [-- PYTEST ARGUMENTS]``.

Both are built as a release is. One is installed with the extra `test` in a new environment, in a temporary folder, and
tested by what the sdist carries, whose own gpu_nn and cuda_src are taken away first: only the installed ones are left.
Where PyTorch is installed beside this, its version is installed there too, and the tests of gpu_nn.torch run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]


def new_environment(folder: Path) -> Path:
    """The Python of an empty virtual environment there."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


def install(python: Path, *packages: object) -> None:
    subprocess.run([*PIP, "--python", python, "install", *map(str, packages)], check=True)


def needed() -> tuple[str, list[str]]:
    """The extras of gpu_nn that the tests need, and what must be installed with them."""
    try:
        return "test,torch", [f"torch=={version('torch').partition('+')[0]}"]
    except PackageNotFoundError:
        return "test", []


def built(folder: Path) -> tuple[Path, Path]:
    """The sdist and the wheel, made there."""
    python = new_environment(folder / "building")
    install(python, *tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"])
    command = [python, "-m", "hatchling", "build", "--directory", folder]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return next(folder.glob("gpu_nn-*.tar.gz")), next(folder.glob("gpu_nn-*.whl"))


def unpacked(sdist: Path, folder: Path) -> Path:
    """The one folder that an sdist holds, unpacked there."""
    with tarfile.open(sdist) as archive:
        # Python 3.11.0 to 3.11.3 have no filters.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    return folder / sdist.name.removesuffix(".tar.gz")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.installed", usage="%(prog)s wheel|sdist [-- PYTEST ARGUMENTS]", description=__doc__
    )
    parser.add_argument("kind", choices=("wheel", "sdist"))
    at = arguments.index("--") if "--" in arguments else len(arguments)
    kind = parser.parse_args(arguments[:at]).kind
    # What is installed here, or lies here, must not be found there.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as place:
        sdist, wheel = built(Path(place))
        python = new_environment(Path(place) / "environment")
        extras, packages = needed()
        install(python, f"{wheel if kind == 'wheel' else sdist}[{extras}]", *packages)
        folder = unpacked(sdist, Path(place))
        for name in ("gpu_nn", "cuda_src"):
            shutil.rmtree(folder / name)
        where = "import gpu_nn; print(gpu_nn.__file__)"
        home = subprocess.run([python, "-c", where], check=True, cwd=folder, env=clean, capture_output=True, text=True)
        print(f"testing {home.stdout.strip()}", flush=True)
        if Path(place).resolve() / "environment" not in Path(home.stdout).resolve().parents:
            raise SystemExit("that is not the one that was installed")
        return subprocess.run([python, "-m", "pytest", *arguments[at + 1 :]], cwd=folder, env=clean).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
