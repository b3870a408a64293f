"""Tells a feature cache which evaluation images the next pass is about."""

from __future__ import annotations

from typing import Any

from lightning_cl.nn.feature_cache import FeatureCache
from lightning_cl.nn.feature_reuse import FeatureBypass
from lightning_cl.training.method_module import MethodModule


def announce(stream: Any, cache: FeatureCache, batch_idx: int, stage: str) -> bool:
    """Announce that the next pass is over this process's samples of evaluation batch ``batch_idx``.

    Args:
        stream: The Trainer's DataModule; without a stream nothing is announced.
        cache: The cache.
        batch_idx: Batch of the evaluation.
        stage: ``"val"`` or ``"test"``.

    Returns:
        Whether anything was announced.
    """
    layout = getattr(stream, "layout", None)
    if layout is None or not cache.enabled:
        return False
    data, index = layout.evaluation[stage], stream.eval_batch(batch_idx, stage).index
    if len(index) == 0:  # this process only repeats another's sample
        return False
    cache.serve(stream.source, stream.eval_transform)
    cache.expect(data.split, index, len(data.labels))
    return True


class KnownFeatures(MethodModule):
    """Computes the features of an evaluation image once, where the network before the head is at rest.

    Attributes:
        bypass: Gives the head what is known of the images that come next.
        cache_features: Whether anything is kept.
    """

    bypass: FeatureBypass
    cache_features: bool

    def expect_samples(self, module: Any, batch_idx: int, stage: str) -> None:
        """Look for known features of the images that come next."""
        if not self.trains_now() and self.cache_features:
            stream = getattr(module.trainer, "datamodule", None)
            if announce(stream, self.bypass.cache, batch_idx, stage):
                self.bypass.watch()

    def forget_samples(self, module: Any) -> None:
        """Expect no images of the stream in the next pass."""
        self.bypass.release()

    def forget_features(self) -> None:
        """Know nothing any more: other weights, other features."""
        self.bypass.cache.clear()
