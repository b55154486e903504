"""Training: the loop, its callbacks and records, and checkpoints from which it resumes."""

from gpu_nn.training.callbacks.best_model import BestModel
from gpu_nn.training.callbacks.callback import Callback, TrainerView, Trigger
from gpu_nn.training.callbacks.checkpoints import Checkpoints
from gpu_nn.training.callbacks.early_stopping import EarlyStopping
from gpu_nn.training.callbacks.learning_rate_monitor import LearningRateMonitor
from gpu_nn.training.callbacks.logs import CsvLog, JsonLinesLog
from gpu_nn.training.callbacks.tensorboard import TensorBoardLog
from gpu_nn.training.history import EpochRecord, History, StepRecord
from gpu_nn.training.trainer import Trainer

__all__ = [
    "BestModel",
    "Callback",
    "Checkpoints",
    "CsvLog",
    "EarlyStopping",
    "EpochRecord",
    "History",
    "JsonLinesLog",
    "LearningRateMonitor",
    "StepRecord",
    "TensorBoardLog",
    "Trainer",
    "TrainerView",
    "Trigger",
]
