"""One training step as a method sees it: its modules, the step, the data of a finished task, and the memory."""

from lightning_cl.training.differential_privacy import private_fit
from lightning_cl.training.learning_progress import ALPGMM, progress_shares
from lightning_cl.training.loss_plateau import LossPlateau
from lightning_cl.training.method_module import MethodModule
from lightning_cl.training.phases import Phases
from lightning_cl.training.step import HeadCall, Step
from lightning_cl.training.task_data import TaskData

__all__ = [
    "ALPGMM",
    "HeadCall",
    "LossPlateau",
    "MethodModule",
    "Phases",
    "Step",
    "TaskData",
    "private_fit",
    "progress_shares",
]
