"""Metric loggers that a recipe may name in `metric_loggers`, beside `metrics.jsonl`.

interface                       what a logger has to have, and what it may have
tensorboard, wandb, trackio     ebft's own, each of which needs its package
"""

from ebft.report.loggers.interface import LoggedRun as LoggedRun
from ebft.report.loggers.interface import MetricLogger as MetricLogger
from ebft.report.loggers.interface import RunLogger as RunLogger
from ebft.report.loggers.tensorboard import TensorBoardLogger as TensorBoardLogger
from ebft.report.loggers.trackio import TrackioLogger as TrackioLogger
from ebft.report.loggers.wandb import WandBLogger as WandBLogger
