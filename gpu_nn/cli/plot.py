"""gpu-nn plot: figures of a run's learning curves and of its model's predictions."""

import argparse
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_nn import plots
from gpu_nn.cli.arguments import SOURCES, TARGET_HELP, add_data_arguments, integer, one_of
from gpu_nn.cli.input_data import labelled_batches, read_splits, split_batches
from gpu_nn.cli.output import print_result, print_stderr
from gpu_nn.cli.run_files import read_test_fingerprint, read_test_result, writing
from gpu_nn.cli.run_folder import RunFolder, RunState
from gpu_nn.files import atomic_write
from gpu_nn.model_file import load

# A smaller square number of inputs is more often a table's than an image's.
_MIN_IMAGE_SIDE = 8

# Of the files, with their metadata: without dates, and with a fixed salt for SVG ids, equal figures are equal files.
_FORMATS: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def add_plot_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="of `gpu-nn train --out`; the run may be unfinished")
    data_help = f"plot predictions on the test part, if any, of these data, {SOURCES} (default: the run's test split)"
    add_data_arguments(parser, data_help, f"of --data: {TARGET_HELP}", required=False)
    parser.add_argument("--out", metavar="FOLDER", help="write the figures there (default FOLDER/pictures)")
    parser.add_argument("--format", type=one_of(_FORMATS), default="png", help="png, svg, pdf (default png)")
    shape_help = "shape of rows that are images but not square; with colours HEIGHT,WIDTH,3"
    parser.add_argument("--image-shape", type=_shape, metavar="HEIGHT,WIDTH", help=shape_help)
    parser.add_argument("--json", action="store_true", help="print the names of the files as JSON")


def run_plot(options: argparse.Namespace) -> None:
    if options.target is not None and options.data is None:
        raise ValueError("--target needs --data; the run's own data keep the target of the training")
    if options.stream != "auto" and options.data is None:
        raise ValueError("--stream needs --data; the run's own data are read as in the training")
    folder = RunFolder(options.folder)
    settings = folder.read_settings("FOLDER")
    try:
        plots.require_matplotlib()
    except ImportError as error:
        raise ValueError(str(error)) from None
    history = folder.read_history()
    figures: dict[str, Callable[[], Any]] = {
        "learning-curves": lambda: plots.learning_curves(history),
        "learning-rate": lambda: plots.learning_rates(history),
    }
    if folder.state is RunState.FINISHED:
        figures |= _prediction_figures(folder, settings, options)
    else:
        print_stderr(f"the run is not finished: only its curves are plotted, up to epoch {len(history)}")
    out = folder.path / "pictures" if options.out is None else Path(options.out)
    written = _write(figures, out, options.format)
    print_result(options.json, {"pictures": written}, "".join(f"{path}\n" for path in written.values()))


def _write(figures: dict[str, Callable[[], Any]], out: Path, suffix: str) -> dict[str, str]:
    """Write the figures to the folder; returns the file of each. A figure without data is left out, with a message."""
    with writing(out, "; --out names another folder"):
        out.mkdir(parents=True, exist_ok=True)
    import matplotlib

    written = {}
    with matplotlib.rc_context({"svg.hashsalt": "gpu_nn"}), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for name, make_figure in figures.items():
            try:
                figure = make_figure()
            except ValueError as error:
                print_stderr(f"no {name}: {error}")
                continue
            path = out / f"{name}.{suffix}"
            with atomic_write(path) as file:
                figure.savefig(file, format=suffix, metadata=_FORMATS[suffix])
            written[name] = str(path)
    for line in dict.fromkeys(str(warning.message) for warning in caught):
        print_stderr(line)
    return written


def _prediction_figures(
    folder: RunFolder, settings: argparse.Namespace, options: argparse.Namespace
) -> dict[str, Callable[[], Any]]:
    net = load(folder.model, options.device)
    classes = list(range(net.n_classes) if net.classes is None else net.classes)
    data_changed = False
    if options.data is None:
        data = read_splits(settings)
        rows = split_batches("digits" if settings.data is None else settings.data, data, net, classes)
        data_changed = read_test_fingerprint(folder.history) not in (None, data.test_fingerprint())
    else:
        rows = labelled_batches(options, net, classes, stored_dtype=True)
    names = [str(value) for value in classes]
    confusion, calibration = plots.ConfusionCounts(names), plots.CalibrationBins(names)
    plotted: dict[str, tuple[Callable[[], Any], Callable[[Any, Any, Any], None]]] = {
        "confusion": (confusion.figure, lambda x, y, p: confusion.add(y, p.argmax(axis=1))),
        "calibration": (calibration.figure, lambda x, y, p: calibration.add(y, p)),
    }
    shape = _image_shape(net.n_inputs, options.image_shape)
    if shape is not None:
        mistakes = plots.WorstMistakes(shape, names)
        plotted["mistakes"] = mistakes.figure, mistakes.add
    correct = 0
    for x, y in rows.batches:
        p = net.device.to_host(net.predict_proba(x))
        correct += int((p.argmax(axis=1) == y).sum())
        for name, (_, add) in list(plotted.items()):
            try:
                add(x, y, p)
            except ValueError as error:
                print_stderr(f"no {name}: {error}")
                del plotted[name]
    test = read_test_result(folder.history)
    if data_changed and test:
        before = f"its test accuracy was {100 * test.accuracy:.2f} % on {test.rows} rows"
        now = f"is now {100 * correct / rows.n_rows:.2f} % on {rows.n_rows}"
        print_stderr(f"the run's data have changed: {before} and {now}, which are plotted")
    return {name: figure for name, (figure, _) in plotted.items()}


def _image_shape(inputs: int, given: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The shape of a row as an image; None, with a message, for rows that are unlikely to be images."""
    if given is not None:
        if math.prod(given) != inputs:
            raise ValueError(f"--image-shape {','.join(map(str, given))} does not fit rows of {inputs} inputs")
        return given
    side = math.isqrt(inputs)
    if side * side == inputs and side >= _MIN_IMAGE_SIDE:
        return side, side
    unlikely = f"rows of {inputs} inputs are not taken for images"
    print_stderr(f"no mistakes: {unlikely}; --image-shape HEIGHT,WIDTH overrides this")
    return None


def _shape(text: str) -> tuple[int, ...]:
    length = integer(1)
    lengths = tuple(length(entry) for entry in text.split(","))
    if len(lengths) not in (2, 3) or (len(lengths) == 3 and lengths[2] not in (3, 4)):
        raise argparse.ArgumentTypeError(f"{text!r}; expected HEIGHT,WIDTH or HEIGHT,WIDTH,3")
    return lengths
