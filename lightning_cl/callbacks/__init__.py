"""What a user puts into ``Trainer(callbacks=[...])``: one file a method."""

from lightning_cl.callbacks.base import ContinualCallback, ContinualMethod
from lightning_cl.callbacks.coda_prompt import CODAPrompt
from lightning_cl.callbacks.finetuning import FineTuning

__all__ = ["CODAPrompt", "ContinualCallback", "ContinualMethod", "FineTuning"]
