"""gpu-nn plot"""

import argparse
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_nn import plots
from gpu_nn.cli.arguments import SOURCES, TARGET, one_of, whole
from gpu_nn.cli.parts import read_parts
from gpu_nn.cli.results import print_json, say, to_stdout
from gpu_nn.cli.rows import add_stream_argument, labelled_rows, tested_rows
from gpu_nn.cli.run_folder import RunFolder
from gpu_nn.cli.run_history import read_tested, read_tested_on
from gpu_nn.cli.train_flags import add_arguments as add_arguments_of_train
from gpu_nn.errors import DataError
from gpu_nn.files import atomic_write
from gpu_nn.model_file import load

FORMATS = ("png", "svg", "pdf")

# Smaller squares are more often columns of a table than images.
_LEAST_SIDE = 8

# A file of the same run is the same bytes: no time of day, and names of its parts that are not random.
_METADATA: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="of `gpu-nn train --out`, whose run may still be going on")
    data_help = f"draw the answers on these, {SOURCES}, on their test part, if any; default: the run's test part"
    parser.add_argument("--data", metavar="FILE|IDX-FOLDER", help=data_help)
    parser.add_argument("--target", metavar="COLUMN|FILE", help=f"of --data: {TARGET}")
    add_stream_argument(parser)
    parser.add_argument("--out", metavar="FOLDER", help="write the pictures there (default FOLDER/pictures)")
    parser.add_argument("--format", type=one_of(FORMATS), default="png", help="png, svg, pdf (default png)")
    shape_help = "of the rows of images that are not square; with colours HEIGHT,WIDTH,3"
    parser.add_argument("--image-shape", type=_shape, metavar="HEIGHT,WIDTH", help=shape_help)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default auto)")
    parser.add_argument("--json", action="store_true", help="print the names of the files as JSON")


def run(options: argparse.Namespace) -> None:
    if options.target is not None and options.data is None:
        raise ValueError("--target goes with --data; the run's own data have the target that it was trained with")
    if options.stream != "auto" and options.data is None:
        raise ValueError("--stream goes with --data; the run's own data are read as they were for it")
    folder = RunFolder(options.folder)
    settings = folder.settings(add_arguments_of_train, "FOLDER")
    try:
        plots.require_matplotlib()
    except ImportError as error:
        raise ValueError(str(error)) from None
    history = folder.read_history()
    draw: dict[str, Callable[[], Any]] = {
        "learning-curves": lambda: plots.learning_curves(history),
        "learning-rate": lambda: plots.learning_rates(history),
    }
    if folder.is_finished:
        draw |= _of_answers(folder, settings, options)
    else:
        say(f"the run is not finished: only its curves are drawn, up to epoch {len(history)}")
    place = folder.path / "pictures" if options.out is None else Path(options.out)
    written = _write(draw, place, options.format)
    if options.json:
        print_json({"pictures": written})
    else:
        to_stdout("".join(f"{path}\n" for path in written.values()))


def _write(draw: dict[str, Callable[[], Any]], place: Path, suffix: str) -> dict[str, str]:
    """Names of the pictures and their files. One that has nothing to show is left out, with a line that says why."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{place} cannot be written: {error.strerror}; --out names another folder") from None
    import matplotlib

    written = {}
    with matplotlib.rc_context({"svg.hashsalt": "gpu_nn"}), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        for name, figure_of in draw.items():
            try:
                figure = figure_of()
            except ValueError as error:
                say(f"no {name}: {error}")
                continue
            path = place / f"{name}.{suffix}"
            with atomic_write(path) as file:
                figure.savefig(file, format=suffix, metadata=_METADATA[suffix])
            written[name] = str(path)
    for line in dict.fromkeys(str(warning.message) for warning in said):
        say(line)
    return written


def _of_answers(
    folder: RunFolder, settings: argparse.Namespace, options: argparse.Namespace
) -> dict[str, Callable[[], Any]]:
    net = load(folder.model, options.device)
    classes = list(range(net.n_classes) if net.classes is None else net.classes)
    changed = False
    if options.data is None:
        data = read_parts(settings)
        rows = tested_rows("digits" if settings.data is None else settings.data, data, net, classes)
        changed = read_tested_on(folder.history) not in (None, data.test_fingerprint())
    else:
        rows = labelled_rows(options, net, classes, as_stored=True)
    names = [str(value) for value in classes]
    confusion, calibration = plots.ConfusionCounts(names), plots.CalibrationBins(names)
    draw: dict[str, Callable[[], Any]] = {"confusion": confusion.figure, "calibration": calibration.figure}
    add: dict[str, Callable[[Any, Any, Any], None]] = {
        "confusion": lambda x, y, p: confusion.add(y, p.argmax(axis=1)),
        "calibration": lambda x, y, p: calibration.add(y, p),
    }
    shape = _image_shape(net.n_inputs, options.image_shape)
    if shape is not None:
        mistakes = plots.WorstMistakes(shape, names)
        draw["mistakes"], add["mistakes"] = mistakes.figure, mistakes.add
    right = 0
    for x, y in rows.pieces:
        p = net.device.to_host(net.predict_proba(x))
        right += int((p.argmax(axis=1) == y).sum())
        for name in tuple(add):
            try:
                add[name](x, y, p)
            except ValueError as error:
                say(f"no {name}: {error}")
                del add[name], draw[name]
    tested = read_tested(folder.history)
    if changed and tested:
        was = f"its test had {100 * tested.accuracy:.2f} % of {tested.rows} rows right"
        now = f"has now {100 * right / rows.n:.2f} % of {rows.n}"
        say(f"the run's data have changed: {was} and {now}, which are drawn")
    return draw


def _image_shape(inputs: int, given: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """That of a row as an image. None, with a line that says so, for rows that are hardly one."""
    if given is not None:
        if math.prod(given) != inputs:
            raise ValueError(f"--image-shape {','.join(map(str, given))} does not fit rows of {inputs} inputs")
        return given
    side = math.isqrt(inputs)
    if side * side == inputs and side >= _LEAST_SIDE:
        return side, side
    say(f"no mistakes: rows of {inputs} inputs are not taken for images; --image-shape HEIGHT,WIDTH says that they are")
    return None


def _shape(text: str) -> tuple[int, ...]:
    length = whole(1)
    lengths = tuple(length(part) for part in text.split(","))
    if len(lengths) not in (2, 3) or (len(lengths) == 3 and lengths[2] not in (3, 4)):
        raise argparse.ArgumentTypeError(f"{text!r}; expected HEIGHT,WIDTH or HEIGHT,WIDTH,3")
    return lengths
