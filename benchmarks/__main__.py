"""python -m benchmarks VERB …: what the READMEs state, measured.

Each verb writes benchmarks/results/VERB.json with the machine and the versions, and prints a table; several may be
given and run one after the other. `readme` puts the tables of those files into the READMEs, between the marks
<!-- VERB --> and <!-- /VERB -->; `plots` draws them.
"""

import argparse
import os
import sys
import warnings
from importlib import import_module
from typing import NoReturn

from benchmarks import peers, results
from gpu_nn.cli import DEVICE, USAGE
from gpu_nn.errors import DeviceError, one_line

# On the CPU, ours beside the peers. `all` is these.
MEASURED = {
    "loss": "loss and gradient of given logits",
    "step": "a training step",
    "optimizer": "an optimizer step",
    "predict": "probabilities of given rows",
    "memory": "the most memory that a large loss and a training step take",
    "growth": "time and memory against rows, classes, width, depth and batch, with exponents",
    "start": "seconds until the package is imported and the command has helped",
}
# Each with a command line of its own.
OTHERS = {
    "gpu": "all that needs a GPU",
    "accuracy": "errors of cost and gradient against mpmath",
    "estimators": "test accuracy beside scikit-learn's",
    "torch": "the cost for PyTorch beside PyTorch's own",
    "resume": "runs that are killed and resumed",
    "sums": "sums over ranks on this machine, by MPI and by Gloo",
    "scaling": "many ranks: a model to 1,024 GPUs, and CPU ranks beside it",
    "streaming": "memory and rate of training on data larger than memory",
    "fuzz": "damaged and lying files through every reader",
    "readme": "the tables of the results into the READMEs",
    "plots": "the results as SVG files",
}


def measure(name: str, quick: bool) -> None:
    """Measure one of MEASURED, print it, and, unless it was quick, write it down."""
    module = import_module(f"benchmarks.{name}")
    threads = peers.use_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers
        result = {
            "machine": results.machine() | {"versions": peers.versions(), **threads},
            "absent": peers.absent(),
            **module.measure(quick),
        }
    if not quick:
        results.write(name, result)
    print(f"\n{name}: {MEASURED[name]}\n\n{results.shown(module, result)}")
    for line in results.against_goals(module, result):
        print(line)


def _failed(verbs: list[str], message: object, code: int) -> NoReturn:
    print(f"python -m benchmarks {' '.join(verbs)}: {one_line(message)}", file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """One line on stderr where a device or a package is missing; exit codes are those of gpu-nn."""
    listed = "\n".join(
        f"  {name:<12}{said}" for name, said in (MEASURED | OTHERS | {"all": "what is timed on the CPU"}).items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verbs", nargs="+", metavar="VERB", choices=[*MEASURED, *OTHERS, "all"])
    parser.add_argument("--quick", action="store_true", help="tiny sizes; shows that it runs, and writes nothing")
    options, rest = parser.parse_known_args()
    alone = [name for name in options.verbs if name in OTHERS]
    if alone and len(options.verbs) > 1:
        others = " ".join(name for name in options.verbs if name != alone[0])
        parser.error(f"{alone[0]} runs by itself, for it has a command line of its own; run {others} by another call")
    if rest and not alone:
        parser.error(f"{' '.join(rest)}: {' '.join(options.verbs)} takes --quick alone")
    try:
        if alone:
            sys.argv.remove(alone[0])  # what is left is its own command line
            import_module(f"benchmarks.{alone[0]}").main()
            return
        for name in MEASURED if "all" in options.verbs else options.verbs:
            measure(name, options.quick)
    except DeviceError as error:
        _failed(options.verbs, error, DEVICE)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("benchmarks", "gpu_nn", "tests"):  # our own fault
            raise
        hint = "pip install -e '.[test,peers]' brings what the benchmarks use"
        _failed(options.verbs, f"{package} is not installed: {hint}", USAGE)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
