"""An image classifier for samples with several labels each."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor
from torch.nn import functional as F

from lightning_cl.models.image_classifier import ImageClassifier


class MultiLabelClassifier(ImageClassifier):
    """Any timm model trained with binary cross-entropy on ``(B, C)`` targets of zeros and ones.

    As :class:`ImageClassifier` in all else, with its arguments; it logs losses, and leaves what else is measured to
    ``MultiLabelEvaluation``. The loss is the mean over all columns.

    Raises:
        ValueError: As :class:`ImageClassifier`; in training, if targets are not ``(B, C)``.
    """

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Mean binary cross-entropy of the batch."""
        images, targets = self._pair(batch)
        loss = F.binary_cross_entropy_with_logits(self(images), targets)
        self.log("train_loss", loss, batch_size=len(targets))
        return loss

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """``(B, num_classes)`` probabilities, each between 0 and 1."""
        images = batch if isinstance(batch, Tensor) else self._pair(batch)[0]
        return cast(Tensor, self(images)).sigmoid()

    def _evaluate(self, batch: Any, batch_idx: int, stage: str) -> None:
        images, targets = self._pair(batch)
        logits = self(images)
        eval_batch = getattr(self._stream, "eval_batch", None)
        real = len(targets) if eval_batch is None else len(eval_batch(batch_idx, stage).index)
        loss = getattr(self, f"{stage}_loss")
        if real:
            loss.update(F.binary_cross_entropy_with_logits(logits[:real], targets[:real]), weight=real)
        self.log(f"{stage}_loss", loss, on_step=False, on_epoch=True, batch_size=1)
