"""What a Trainer calls while it trains: one protocol, `Callback`, and those that come with the package."""

from gpu_nn.training.callbacks.best_model import BestModel
from gpu_nn.training.callbacks.callback import Callback, TrainerView, Trigger
from gpu_nn.training.callbacks.checkpoints import Checkpoints
from gpu_nn.training.callbacks.early_stopping import EarlyStopping
from gpu_nn.training.callbacks.learning_rate_monitor import LearningRateMonitor
from gpu_nn.training.callbacks.logs import CsvLog, JsonLinesLog
from gpu_nn.training.callbacks.tensorboard import TensorBoardLog

__all__ = [
    "BestModel",
    "Callback",
    "Checkpoints",
    "CsvLog",
    "EarlyStopping",
    "JsonLinesLog",
    "LearningRateMonitor",
    "TensorBoardLog",
    "TrainerView",
    "Trigger",
]
