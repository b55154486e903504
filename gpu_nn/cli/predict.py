"""gpu-nn predict"""

import argparse
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from gpu_nn.cli.arguments import SOURCES, file_name
from gpu_nn.cli.results import print_json, to_stdout_whole
from gpu_nn.cli.rows import Rows, add_stream_argument, input_rows
from gpu_nn.errors import DataError
from gpu_nn.files import atomic_write
from gpu_nn.model_file import load
from gpu_nn.multilabel import threshold
from gpu_nn.network import Network

# Of a row group of a Parquet file, which is in memory when it is written: 16 MiB of probabilities.
_GROUP_VALUES = 1 << 22


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model.safetensors")
    parser.add_argument("--data", required=True, metavar="FILE|IDX-FOLDER", help=f"{SOURCES}; labels may be missing")
    parser.add_argument("--target", metavar="COLUMN", help="the column to leave out; default: as in training, if there")
    parser.add_argument("--proba", action="store_true", help="probabilities, one column a class")
    out_help = "write them there instead of to stdout; Parquet needs the extra parquet"
    kind = file_name(".csv", ".npy", ".parquet")
    parser.add_argument("--out", type=kind, metavar="FILE.csv|FILE.npy|FILE.parquet", help=out_help)
    add_stream_argument(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default auto)")
    json_help = "print them as JSON; with --out, say as JSON what was written"
    parser.add_argument("--json", action="store_true", help=json_help)


@dataclass(frozen=True)
class Answers:
    """rows: how many. classes: names of the classes. what: "probabilities" or "predictions". of_each: whether a row has
    one of them for every class: probabilities, or the flags of several labels. pieces: in the order of the rows, (n,)
    names of classes or (n, classes) numbers of `dtype`, as they are made.
    """

    rows: int
    classes: np.ndarray
    what: str
    of_each: bool
    dtype: np.dtype
    pieces: Iterator[np.ndarray]


def run(options: argparse.Namespace) -> None:
    parquet = _parquet() if (options.out or "").endswith(".parquet") else None
    net = load(options.model, options.device)
    classes = np.asarray(range(net.n_answers) if net.classes is None else net.classes)
    rows = input_rows(options, net)
    what, several = "probabilities" if options.proba else "predictions", net.multilabel is not None
    dtype = net.dtype if options.proba else np.dtype(np.int64) if several else classes.dtype
    pieces = _answers(options, net, classes, rows)
    answers = Answers(rows.n, classes, what, options.proba or several, dtype, pieces)
    if options.out is None:
        to_stdout_whole(_json(answers) if options.json else _csv(answers), "--out FILE.csv is in UTF-8, and ")
        return
    with atomic_write(options.out) as file:
        if parquet is not None:
            _write_parquet(file, answers, parquet)
        elif options.out.endswith(".npy"):
            _write_npy(file, answers)
        else:
            for text in _csv(answers):
                file.write(text.encode())
    if options.json:
        print_json({"file": options.out, "rows": rows.n})


def _answers(options: argparse.Namespace, net: Network, classes: np.ndarray, rows: Rows) -> Iterator[np.ndarray]:
    first = 0
    for x, _ in rows.pieces:
        scores = net.device.to_host(net.predict_proba(x) if options.proba else net.forward(x))
        finite = np.isfinite(scores).all(axis=1)
        if not finite.all():
            row = first + int(np.argmin(finite))
            raise DataError(f"row {row} of {options.data} has no prediction: too large numbers for {net.dtype}")
        first += len(x)
        if options.proba:
            yield scores
        else:
            yield classes[scores.argmax(axis=1)] if net.multilabel is None else threshold(scores)


def _csv(answers: Answers) -> Iterator[str]:
    """A class a line; or numbers for each class under a line with the classes."""
    classes = answers.classes.tolist()
    if answers.of_each:
        yield _line(classes)
    lines = {value: _line([value]) for value in classes}
    for values in answers.pieces:
        text = io.StringIO()
        if answers.of_each:
            # Nine digits tell any two float32 apart.
            np.savetxt(text, values, fmt="%.9g", delimiter=",")
        else:
            text.writelines(map(lines.__getitem__, values.tolist()))
        yield text.getvalue()


def _line(values: list) -> str:
    """A line of CSV, in quotes what needs them."""
    line = io.StringIO()
    # Characters of the end of a line are put in quotes: this end has all that readers know.
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _json(answers: Answers) -> Iterator[str]:
    """One line with the classes, and the answers to all rows in a list."""
    yield f'{{"classes": {json.dumps(answers.classes.tolist())}, "{answers.what}": '
    before = "["
    for values in answers.pieces:
        yield before + json.dumps(values.tolist())[1:-1]
        before = ", "
    yield "]}\n"


def _write_npy(file: BinaryIO, answers: Answers) -> None:
    """The bytes that `np.save` would write of them all."""
    shape = (answers.rows, len(answers.classes)) if answers.of_each else (answers.rows,)
    header = {"descr": npy.dtype_to_descr(answers.dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, header)
    for values in answers.pieces:
        file.write(np.ascontiguousarray(values).data)


def _write_parquet(file: BinaryIO, answers: Answers, parquet: Any) -> None:
    """A column `class`, or a column of numbers for each class, by its name."""
    none = np.empty((0, len(answers.classes)) if answers.of_each else 0, answers.dtype)
    waiting = [none]
    with parquet.ParquetWriter(file, _columns(answers, none).schema) as writer:
        for values in answers.pieces:
            waiting.append(values)
            if sum(some.size for some in waiting) >= _GROUP_VALUES:
                writer.write_table(_columns(answers, np.concatenate(waiting)))
                waiting = [none]
        writer.write_table(_columns(answers, np.concatenate(waiting)))


def _columns(answers: Answers, values: np.ndarray) -> Any:
    """The answers to some rows as a table."""
    import pyarrow

    if not answers.of_each:
        named = values.dtype.kind == "U"
        return pyarrow.table({"class": pyarrow.array(values.tolist(), pyarrow.string()) if named else values})
    columns = [pyarrow.array(np.ascontiguousarray(column)) for column in values.T]
    return pyarrow.table(columns, names=[str(name) for name in answers.classes.tolist()])


def _parquet() -> Any:
    """The module that writes Parquet; ValueError, with a hint, without it."""
    try:
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise ValueError("--out FILE.parquet needs pyarrow: pip install 'gpu_nn[parquet]'") from None
    return parquet
