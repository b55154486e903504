"""What `gpu-nn train` says of a run that is done."""

from dataclasses import asdict, dataclass
from pathlib import Path

from gpu_nn.cli.results import print_json, to_stdout
from gpu_nn.training import History


@dataclass(frozen=True)
class Tested:
    """Mean cost and accuracy on the test part, and its rows."""

    loss: float
    accuracy: float
    rows: int


def report(as_json: bool, device: str, tested: Tested, history: History, seconds: float, model: Path | None) -> None:
    """Print it."""
    if as_json:
        result = {
            "test_accuracy": tested.accuracy,
            "test_loss": tested.loss,
            "test_rows": tested.rows,
            "epochs": len(history),
            "seconds": round(seconds, 3),
            "device": device,
            "model": None if model is None else str(model),
            "history": [asdict(record) for record in history.epochs],
        }
        print_json(result)
        return
    said = f"test accuracy {100 * tested.accuracy:.2f} % on {tested.rows} rows, loss {tested.loss:.4g}"
    said = f"{said}, {seconds:.2f} s on {device}\n"
    to_stdout(said if model is None else f"{said}model: {model}\n")
