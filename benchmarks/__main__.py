"""python -m benchmarks NAME …: the measurements behind the READMEs.

Each benchmark writes benchmarks/results/NAME.json with the machine and the versions, and prints a table; several run
one after the other. `readme` puts the tables of those files into the READMEs, `plots` draws them.
"""

import argparse
import os
import sys
import warnings
from typing import NoReturn

from benchmarks import baselines, results
from gpu_nn.cli import DEVICE, USAGE
from gpu_nn.errors import DeviceError, one_line

# On the CPU, beside the baselines; `all` runs these.
MEASURED = {
    "loss": "loss and gradient of given logits",
    "step": "a training step",
    "optimizer": "an optimizer step",
    "predict": "probabilities of given rows",
    "memory": "peak memory of a large loss, of a training step and of predictions",
    "growth": "time and memory by rows, classes, width, depth and batch, with exponents",
    "start": "seconds until the package is imported and the command has printed its help",
}
# Each with a command line of its own.
OTHERS = {
    "gpu": "everything that needs a GPU",
    "accuracy": "errors of cost and gradient against mpmath",
    "estimators": "test accuracy beside scikit-learn's",
    "torch": "gpu_nn.torch beside compositions in PyTorch",
    "sums": "all-reduces over ranks on this machine, by MPI and by Gloo",
    "scaling": "training on many ranks: a model for up to 1,024 GPUs, and CPU ranks",
    "streaming": "peak memory and rate of training on data larger than memory",
    "readme": "put the tables of the results into the READMEs",
    "plots": "draw the results as SVG files",
}


def measure(name: str, quick: bool) -> None:
    """Measure one of MEASURED, print it and, unless quick, write it."""
    module = results.module(name)
    threads = baselines.use_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the baselines
        result = {
            "machine": results.machine() | {"versions": baselines.versions(), **threads},
            "absent": baselines.absent(),
            **module.measure(quick),
        }
    if not quick:
        results.write(name, result)
    print(f"\n{name}: {MEASURED[name]}\n\n{results.shown(module.markdown(result), result)}")
    goals = module.goals(result) if hasattr(module, "goals") else ()
    for line in results.against_goals(goals, getattr(module, "GOALS_ARE_UPPER_BOUNDS", False)):
        print(line)


def _failed(names: list[str], message: object, code: int) -> NoReturn:
    print(f"python -m benchmarks {' '.join(names)}: {one_line(message)}", file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """Run the command line; a missing device or package is one line on stderr. Exit codes are those of gpu-nn."""
    listed = "\n".join(
        f"  {name:<12}{said}" for name, said in (MEASURED | OTHERS | {"all": "what is timed on the CPU"}).items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", metavar="NAME", choices=[*MEASURED, *OTHERS, "all"])
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes nothing")
    options, rest = parser.parse_known_args()
    alone = [name for name in options.names if name in OTHERS]
    if alone and len(options.names) > 1:
        others = " ".join(name for name in options.names if name != alone[0])
        parser.error(f"{alone[0]} has a command line of its own and runs alone; run {others} in another call")
    if rest and not alone:
        parser.error(f"{' '.join(rest)}: {' '.join(options.names)} takes no option but --quick")
    try:
        if alone:
            sys.argv.remove(alone[0])  # the rest is its own command line
            results.module(alone[0]).main()
            return
        for name in MEASURED if "all" in options.names else options.names:
            measure(name, options.quick)
    except DeviceError as error:
        _failed(options.names, error, DEVICE)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("benchmarks", "gpu_nn", "tests"):  # a bug, not a missing package
            raise
        hint = "pip install -e '.[test,baselines]' installs what the benchmarks use"
        _failed(options.names, f"{package} is not installed: {hint}", USAGE)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
