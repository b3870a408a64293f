"""Models that learn one folder of images after another: model folders, versions, predictions, exports."""

from lightning_cl.lifelong.configuration import Configuration
from lightning_cl.lifelong.learned_model import LearnedModel, create, load
from lightning_cl.lifelong.prediction import Predictions
from lightning_cl.lifelong.preprocessing import Preprocessing
from lightning_cl.lifelong.teaching import Taught

__all__ = ["Configuration", "LearnedModel", "Predictions", "Preprocessing", "Taught", "create", "load"]
