"""Training to a loss target, and what is measured on a model along the way and afterwards."""

from hbanalysis.training.config import REVISION, TrainingConfig
from hbanalysis.training.loop import RESUME, STATE_NOTES, train
from hbanalysis.training.record import EPOCH_END, RECORD, Record, load_record, stem

__all__ = [
    "EPOCH_END",
    "RECORD",
    "RESUME",
    "REVISION",
    "STATE_NOTES",
    "Record",
    "TrainingConfig",
    "load_record",
    "stem",
    "train",
]
