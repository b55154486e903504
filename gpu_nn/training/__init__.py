"""Training: the loop, what it reports, and the record that it leaves."""

from gpu_nn.training.history import EpochRecord, History
from gpu_nn.training.trainer import Callback, Trainer

__all__ = ["Callback", "EpochRecord", "History", "Trainer"]
