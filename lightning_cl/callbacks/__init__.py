"""What a user puts into ``Trainer(callbacks=[...])``: one file a method."""

from lightning_cl.callbacks.base import ContinualCallback, ContinualMethod
from lightning_cl.callbacks.coda_prompt import CODAPrompt
from lightning_cl.callbacks.continual_evaluation import ContinualEvaluation
from lightning_cl.callbacks.finetuning import FineTuning
from lightning_cl.callbacks.prototype_classifier import PrototypeClassifier

__all__ = [
    "CODAPrompt",
    "ContinualCallback",
    "ContinualEvaluation",
    "ContinualMethod",
    "FineTuning",
    "PrototypeClassifier",
]
