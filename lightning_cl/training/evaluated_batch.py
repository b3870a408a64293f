"""Tells a feature cache which evaluation images the next pass is about."""

from __future__ import annotations

from typing import Any

from lightning_cl.nn.feature_cache import FeatureCache


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
