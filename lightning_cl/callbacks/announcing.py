"""Tells a feature cache which evaluation images the next pass is about."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lightning_cl.callbacks.base import require_stream
from lightning_cl.datamodules.layout import Stage
from lightning_cl.nn.feature_cache import FeatureCache


def announce(trainer: Trainer, cache: FeatureCache, batch_idx: int, stage: Stage, who: str) -> None:
    """The next pass of this process is over its samples of evaluation batch ``batch_idx``."""
    stream = require_stream(trainer, who)
    data, index = stream.layout.evaluation[stage], stream.eval_batch(batch_idx, stage).index
    if len(index):  # none: this process only repeats another's sample
        cache.expect(data.split, index, len(data.labels))
