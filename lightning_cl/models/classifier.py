"""What all classifiers here share: steps, metrics, optimiser and schedule, by name or from a config."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from lightning_cl.namespace import LightningModule, LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning_cl.nn.schedules import coda_cosine, coda_cosine_released, cpe_clip_warmup

if TYPE_CHECKING:
    from lightning_cl.datamodules.task import Task

OptimizerName = Literal["adam", "adamw", "sgd"]
ScheduleName = Literal["constant", "cosine", "coda_cosine", "coda_cosine_released", "cpe_clip"]


def cosine(epoch: int, epochs: int) -> float:
    """Half a cosine from 1 towards 0 (arXiv:1608.03983, eq. 5 without restarts); ``epoch`` from 0, ``epochs >= 1``."""
    return (1 + math.cos(math.pi * min(epoch, epochs) / epochs)) / 2


_SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "cosine": cosine,
    "coda_cosine": coda_cosine,
    "coda_cosine_released": coda_cosine_released,
    "cpe_clip": cpe_clip_warmup,
}


class Classifier(LightningModule):
    """Cross-entropy, counted accuracies, an optimiser and a schedule; a member adds the network and ``forward``.

    Args:
        num_classes: Columns of the logits; ``None``: known when a Trainer with a stream is there.
        optimizer, lr, weight_decay, lr_schedule, batch_keys: See :class:`ImageClassifier`.

    Raises:
        ValueError: For an unknown optimiser or schedule, or ``lr`` or ``weight_decay``
            beside an optimiser that is not given by name.
    """

    def __init__(
        self,
        num_classes: int | None,
        optimizer: OptimizerName | OptimizerCallable,
        lr: float | None,
        weight_decay: float | None,
        lr_schedule: ScheduleName | LRSchedulerCallable,
        batch_keys: tuple[str, str],
    ) -> None:
        super().__init__()
        if lr_schedule != "constant" and lr_schedule not in _SCHEDULES and not callable(lr_schedule):
            raise ValueError(
                f'`lr_schedule` is {lr_schedule!r}; give "constant", "cosine", "coda_cosine", '
                '"coda_cosine_released", "cpe_clip" or a class of torch.optim.lr_scheduler.'
            )
        self.num_classes = num_classes
        self.make_optimizer = _optimizer_factory(optimizer, lr, weight_decay)
        self.lr_schedule, self.batch_keys = lr_schedule, batch_keys
        for stage in ("val", "test"):
            setattr(self, f"{stage}_loss", MeanMetric())
            setattr(self, f"{stage}_acc", MulticlassAccuracy(num_classes, average="micro", validate_args=False))

    def num_classes_of_stream(self) -> int:
        """How many classes the Trainer's stream has.

        Raises:
            ValueError: If there is none.
        """
        found = None if self._trainer is None else getattr(self._stream, "num_classes", None)
        if found is None:
            raise ValueError(
                "`num_classes` is None, and there is no stream to take it from; give the number of classes, e.g. "
                f"`{type(self).__name__}(num_classes=stream.info.num_classes)`."
            )
        return int(found)

    # ------------------------------------------------------------------ steps

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Mean cross-entropy of the batch."""
        images, labels = self._pair(batch)
        loss = F.cross_entropy(self(images), labels)
        self.log("train_loss", loss, batch_size=len(labels))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Count the batch in ``val_loss`` and ``val_acc``."""
        self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Count the batch in ``test_loss`` and ``test_acc``."""
        self._evaluate(batch, batch_idx, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """``(B, num_classes)`` probabilities."""
        images = batch if isinstance(batch, Tensor) else self._pair(batch)[0]
        return cast(Tensor, self(images)).softmax(-1)

    def _evaluate(self, batch: Any, batch_idx: int, stage: str) -> None:
        images, labels = self._pair(batch)
        logits = self(images)
        eval_batch = getattr(self._stream, "eval_batch", None)
        if eval_batch is not None:  # the rest of the batch pads it to the size that the other processes have
            real = len(eval_batch(batch_idx, stage).index)
            logits, labels = logits[:real], labels[:real]
        loss, accuracy = getattr(self, f"{stage}_loss"), getattr(self, f"{stage}_acc")
        if len(labels):
            loss.update(F.cross_entropy(logits, labels), weight=len(labels))
            accuracy.update(logits, labels)
        self.log(f"{stage}_loss", loss, on_step=False, on_epoch=True, batch_size=1)
        self.log(f"{stage}_acc", accuracy, on_step=False, on_epoch=True, prog_bar=True, batch_size=1)

    def _pair(self, batch: Any) -> tuple[Tensor, Tensor]:
        if isinstance(batch, Mapping):
            missing = [key for key in self.batch_keys if key not in batch]
            if missing:
                raise ValueError(
                    f"the batch has the keys {sorted(map(str, batch))} but not {missing}; name its image and label "
                    f"with `{type(self).__name__}(batch_keys=(...))`."
                )
            return batch[self.batch_keys[0]], batch[self.batch_keys[1]]
        return batch[0], batch[1]

    # ------------------------------------------------------------------ optimiser and schedule

    @property
    def _stream(self) -> Any:
        """The Trainer's DataModule, if there is one."""
        return getattr(self.trainer, "datamodule", None)

    def configure_optimizers(self) -> Any:
        """The optimiser, and the schedule from its beginning."""
        optimizer = self.make_optimizer(self.parameters())
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # not every scheduler notes where it began
        if self.lr_schedule == "constant":
            return optimizer
        scheduler = self._schedule(optimizer)
        config = {"scheduler": scheduler, "interval": "epoch"}
        if isinstance(scheduler, ReduceLROnPlateau):
            config["monitor"] = scheduler.monitor
        return {"optimizer": optimizer, "lr_scheduler": config}

    def _schedule(self, optimizer: Optimizer) -> Any:
        if callable(self.lr_schedule):
            return self.lr_schedule(optimizer)
        multiplier = _SCHEDULES[self.lr_schedule]
        return LambdaLR(optimizer, lambda epoch: multiplier(epoch, self._epochs()))

    def _epochs(self) -> int:
        """Epochs of the current task; of the run when there is no stream."""
        task = getattr(self._stream, "task", None)
        return max(1, int(self.trainer.max_epochs or 1) if task is None else int(task.epochs))

    def on_task_start(self, task: Task) -> None:
        """Begin the schedule anew; a method that asks for fresh optimisers replaces both right after this."""
        for config in self.trainer.strategy.lr_scheduler_configs if task.index else ():
            optimizer = config.scheduler.optimizer
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"]
            config.scheduler = self._schedule(optimizer)


def _optimizer_factory(
    optimizer: OptimizerName | OptimizerCallable, lr: float | None, weight_decay: float | None
) -> Callable[[Any], Optimizer]:
    """A function from parameters to an optimiser."""
    if callable(optimizer):
        if lr is not None or weight_decay is not None:
            raise ValueError(
                f"`lr` is {lr} and `weight_decay` is {weight_decay}, but the optimiser is not given by name and "
                "brings its own; put them among the optimiser's arguments."
            )
        return optimizer
    options: dict[str, Any] = {"lr": 1e-3 if lr is None else lr, "weight_decay": weight_decay or 0.0}
    if optimizer == "sgd":
        return lambda parameters: torch.optim.SGD(parameters, momentum=0.9, **options)
    if optimizer not in ("adam", "adamw"):
        raise ValueError(f'`optimizer` is {optimizer!r}; give "adam", "adamw", "sgd" or a class of torch.optim.')
    chosen = torch.optim.Adam if optimizer == "adam" else torch.optim.AdamW
    return lambda parameters: chosen(parameters, **options)
