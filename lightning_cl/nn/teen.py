"""TEEN (arXiv:2312.05229): class means of few samples are shifted towards the base classes that they resemble."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.nn.heads.cosine import cosine_logits
from lightning_cl.nn.load_hooks import after_load
from lightning_cl.nn.prototypes import PrototypeBank

__all__ = ["TEENBank", "calibrate", "cosine_logits"]


def calibrate(new: Tensor, base: Tensor, alpha: float, temperature: float) -> Tensor:
    """Calibrated rows of few-shot classes (TEEN, eq. 5 and 6), as in the official code with unit-length rows.

    ``a = softmax(T * cos(new, base))``, ``d = normalise(a @ normalise(base))``,
    ``row = (1 - alpha) * normalise(new) + alpha * d``. ``alpha = 0`` is the nearest class mean.

    Args:
        new: ``(N, D)`` class means.
        base: ``(B, D)`` means of the base classes.
        alpha: Share of the base classes, in [0, 1].
        temperature: Sharpness ``T`` of the similarity, above 0.

    Returns:
        ``(N, D)`` rows; their length is at most 1 and plays no part in cosine logits.
    """
    new, base = F.normalize(new, dim=1), F.normalize(base, dim=1)
    similarity = torch.softmax(temperature * new @ base.T, dim=1)  # (N, B)
    return (1 - alpha) * new + alpha * F.normalize(similarity @ base, dim=1)


class TEENBank(PrototypeBank):
    """Class means; those that are not of the base session answer with calibrated rows.

    A row is a function of its own mean and of the base means, so later sessions never change it.

    Args:
        num_classes: Rows, ``C``.
        width: Feature size, ``D``.
        alpha: Share of the base classes in a row, in [0, 1].
        temperature: Sharpness of the similarity to base classes.
        scale: Of the cosine logits.
    """

    base: Tensor

    growing = (*PrototypeBank.growing, "base")

    def __init__(self, num_classes: int, width: int, alpha: float, temperature: float, scale: float) -> None:
        super().__init__(num_classes, width, distance="cosine", normalize=False)
        self.alpha, self.temperature, self.scale = alpha, temperature, scale
        self.register_buffer("base", torch.zeros(num_classes, dtype=torch.bool))
        self.ready = False  # mirrors whether there are base classes, without a host sync
        after_load(self, "_see_base")

    def _see_base(self) -> None:
        self.ready = bool(self.base.any())

    def finish_base(self, classes: Tensor) -> None:
        """The means of these ``(B,)`` classes are those of the base session."""
        self.base[classes.to(self.base.device)] = True
        self.ready = True

    @property
    def rows(self) -> Tensor:
        """``(C, D)`` float64 rows of the classifier; zero for a class without samples."""
        means = self.means
        calibrated = calibrate(means, means[self.base], self.alpha, self.temperature)
        own = self.base | (self.counts == 0)
        return torch.where(own[:, None], means, calibrated)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, C)`` logits in ``[-scale, scale]``; -inf for classes without samples."""
        dtype = features.dtype if features.dtype == torch.float64 else torch.float32
        logits = cosine_logits(features.to(dtype), self.rows.to(dtype), self.scale)
        return logits.masked_fill(self.counts == 0, -torch.inf)

    def extra_repr(self) -> str:
        """Sizes and options."""
        classes, width = self.sums.shape
        return f"{classes} x {width}, alpha={self.alpha}, temperature={self.temperature}, scale={self.scale}"
