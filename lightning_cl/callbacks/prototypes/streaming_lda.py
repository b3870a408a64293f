"""Streaming LDA: linear discriminant analysis of a frozen network's features, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightning_cl.callbacks.arguments import above, fraction
from lightning_cl.callbacks.prototypes.feature_method import CountingMethod
from lightning_cl.nn.heads import StreamingLDAHead


@dataclass(eq=False)
class StreamingLDA(CountingMethod):
    """Deep SLDA (Hayes and Kanan, CVPR workshops 2020, arXiv:1909.01520): class means and one running covariance.

    Logits are ``x L m_c - m_c L m_c / 2`` with class means ``m_c`` and ``L = ((1 - shrinkage) S + shrinkage I)^-1``.
    The covariance ``S`` of all classes is updated with each sample's distance to its class's mean before it, so it
    depends on the order of the samples (``FeCAM(covariance="shared")`` does not), but not on batches or processes.
    Needs no task boundaries and no sample kept; keeps ``D^2 + C D`` numbers. Every training image passes the network
    once, in a task's first epoch, every evaluation image once a run. Works on any model with a class head.

    Args:
        shrinkage: Share of the identity in the covariance, in (0, 1]; 1e-4 as published.
        skip_first: Leave the first sample of a class out of the covariance; the published code compares it with a mean
            of zero, so that its whole outer product enters.

    Raises:
        ValueError: If ``shrinkage`` is out of its range, or the matrices do not fit into memory.
    """

    state_key: ClassVar[str] = "lightning_cl.StreamingLDA"
    advice: ClassVar[str] = "use a backbone with fewer channels"

    shrinkage: float = above(0, fraction(default=1e-4))
    skip_first: bool = True

    def bank(self, num_classes: int, width: int) -> StreamingLDAHead:
        """Means and a scatter matrix."""
        return StreamingLDAHead(num_classes, width, self.shrinkage, self.skip_first)

    def bytes_needed(self, num_classes: int, width: int) -> int:
        """The scatter, the covariance and its factor; and the means with what is multiplied by them."""
        return 8 * width * (3 * width + 3 * num_classes)
