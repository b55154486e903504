"""Training: the loop, what it reports, what it calls, and how it goes on after it was broken off."""

from gpu_nn.training.callbacks import (
    BestModel,
    Callback,
    Checkpoints,
    CsvLog,
    EarlyStopping,
    JsonLinesLog,
    LearningRateMonitor,
    TensorBoardLog,
    TrainerView,
    Trigger,
)
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
