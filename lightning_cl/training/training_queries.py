"""Compute the queries of a task's training images once: the backbone is frozen, and the images are not augmented."""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor

from lightning_cl.nn.feature_cache import FeatureCache
from lightning_cl.nn.prompts import PromptProvider
from lightning_cl.training.batch import call_with
from lightning_cl.training.task_data import TaskData

#: Images that are looked at twice, to see whether they are the same in every pass.
_TRIED = 8
_HALF = 2**32


class _QueryFound(Exception):
    """The query is there; what would follow in the pass is not computed."""


class TrainingQueries:
    """Announces the images of every training step to the cache of a provider, which it fills before a task's first.

    The pass is over the whole task in a fixed order, at the first step that this process makes in it, so a run that
    was resumed in the middle of a task has the very same queries. Only those of the current task are kept.

    Args:
        provider: Asked for prompts with the queries.
        evaluated: Of the same network: queries of evaluation images.
    """

    def __init__(self, provider: PromptProvider, evaluated: FeatureCache) -> None:
        self.provider, self.evaluated = provider, evaluated
        self._cache = provider.training_queries = FeatureCache()
        self._task = -1
        self._positions = torch.zeros(0, dtype=torch.int64)

    def announce(self, module: Any) -> None:
        """Announce the images of a step; nothing in a stream without boundaries, whose future is not to be seen."""
        stream, cache = getattr(module.trainer, "datamodule", None), self._cache
        if stream is None or stream.task.order == "stream":
            return
        if self._task != stream.task.index or "train" not in cache.known:
            self._fill(module, TaskData(module, stream.task))
        index = stream.train_batch(module.trainer.fit_loop.batch_idx).index
        places = torch.searchsorted(self._positions, index).clamp(max=len(self._positions) - 1)
        cache.expect("train", places, len(self._positions))

    def _fill(self, module: Any, data: TaskData) -> None:
        extract = partial(self._queries, module)
        found = data.all_features(extract, view="train")
        order = found.positions.argsort()
        rows, self._positions = found.features[order], found.positions[order].cpu()
        tried = data.over(self._positions[:_TRIED]).all_features(extract, view="train", epoch=1)
        again, before = _prints(tried.features[tried.positions.argsort()]), _prints(rows[:_TRIED])
        if not torch.equal(again, before):
            raise ValueError(
                "`cache_training_queries=True` needs training images that are the same in every epoch, but the "
                'training transform changes them; use a source with `augment="none"` (or a `train_transform` without '
                "randomness), or leave the argument out."
            )
        self._cache.clear()
        self._cache.expect("train", torch.arange(len(rows)), len(rows))
        self._cache.remember(rows[:, :-2].to(self._dtype), _prints(rows))
        self._task = data.task.index

    def _queries(self, module: Any, inputs: Any) -> Tensor:
        """``(B, D + 2)`` float64 queries of inputs, and fingerprints of what the network was given, in two halves."""
        rows = len(inputs) if isinstance(inputs, Tensor) else 0
        self.evaluated.expect("pass", torch.arange(rows), rows)
        hook = self.provider.register_forward_pre_hook(_stop)
        try:
            call_with(module, inputs)
        except _QueryFound:
            pass
        finally:
            hook.remove()
        if "pass" not in self.evaluated.known:
            self.evaluated.forget_expectation()
            raise ValueError(
                "`cache_training_queries=True` needs a module whose `forward` gives the images of a batch, one tensor "
                "with a row for each, to its network; leave the argument out."
            )
        queries, prints = self.evaluated.take("pass")
        self._dtype = queries.dtype
        halves = torch.stack((prints // _HALF, prints % _HALF), dim=1)
        return torch.cat((queries.double(), halves.to(queries.device, torch.float64)), dim=1)


def _prints(rows: Tensor) -> Tensor:
    """``(n,)`` fingerprints in the last two columns of rows, on the CPU."""
    high, low = rows[:, -2:].cpu().long().unbind(dim=1)
    return high * _HALF + low


def _stop(provider: Any, given: Any) -> NoReturn:
    raise _QueryFound
