"""Draw features of classes from a Gaussian of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussians:
    """A Gaussian of each of ``K`` classes; ``dataclasses.replace(gaussians, mean=...)`` moves them.

    Attributes:
        classes: ``K`` labels.
        mean: ``(K, D)`` float64.
        factor: Cholesky factors of the covariances, ``(K, D, D)``, or ``(1, D, D)`` for all; or standard deviations
            ``(K, D)``. float64.
    """

    classes: tuple[int, ...]
    mean: Tensor
    factor: Tensor

    @classmethod
    def fit(cls, classes: tuple[int, ...], mean: Tensor, covariance: Tensor, jitter: float) -> Gaussians:
        """From covariances ``(K or 1, D, D)`` or variances ``(K, D)``, to which ``jitter`` is added.

        Raises:
            ValueError: If a covariance is not positive definite.
        """
        if covariance.ndim == 2:
            return cls(classes, mean, (covariance.clamp_min(0) + jitter).sqrt())
        eye = torch.eye(mean.shape[1], dtype=covariance.dtype, device=covariance.device)
        factor, failed = torch.linalg.cholesky_ex(covariance + jitter * eye)
        if failed.any():
            raise ValueError(
                f"a covariance is not positive definite with `jitter` {jitter}: a class has fewer samples than "
                "channels, or features that do not vary; give a larger `jitter` (1e-4 is usual)."
            )
        return cls(classes, mean, factor)

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``(K * count, D)`` float32 features, class after class, and their ``(K * count,)`` places in ``classes``.

        Args:
            count: Of each class.
            generator: On the CPU: the same draws on any device and process.
        """
        size, width = self.mean.shape
        noise = torch.randn(size, count, width, generator=generator).to(self.mean.device)
        factor = self.factor.float()
        moved = noise * factor[:, None] if factor.ndim == 2 else noise @ factor.mT
        features = (self.mean.float()[:, None] + moved).flatten(0, 1)
        return features, torch.arange(size, device=features.device).repeat_interleave(count)
