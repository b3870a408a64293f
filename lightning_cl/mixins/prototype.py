"""A classifier of class means in a frozen module: the training step only counts, the head only compares."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.mixins.base import ContinualMixin, expect_eval_mode
from lightning_cl.nn.distributed import gather_rows
from lightning_cl.nn.feature_reuse import FeatureBypass
from lightning_cl.nn.prototypes import PrototypeBank
from lightning_cl.training import MethodModule, Step
from lightning_cl.training.evaluated_batch import announce
from lightning_cl.training.loss_terms import zero_through


class ClassMeans(MethodModule):
    """Counts each task's samples once, and answers with comparisons to the means; nothing is trained.

    Args:
        module: Frozen here, and in eval mode from now on.
        bank: The means.
        cache_features: Compute the feature of an evaluation image once per run. Needs evaluation transforms without
            randomness.
    """

    makes_logits = True
    former_keys: ClassVar[dict[str, str]] = {"prototypes.": "bank."}
    known_as: ClassVar[dict[str, str]] = {"prototypes": "bank"}

    def __init__(self, module: Any, bank: PrototypeBank, cache_features: bool = True) -> None:
        super().__init__()
        self.bank, self.cache_features, self.monitored = bank, cache_features, False
        self.bypass = FeatureBypass(module, module.continual_head)
        module.requires_grad_(False)
        # DDP and optimisers want something to hold on to; its gradient is zero and its rows are protected.
        module.continual_head.requires_grad_(True)
        module.eval()  # here too: the Trainer keeps the mode that it finds, and may never call `train`
        self.register_load_state_dict_post_hook(_forget_features)  # type: ignore[no-untyped-call]
        expect_eval_mode()

    def trains_now(self) -> bool:
        """Never."""
        return False

    def start_run(self, module: Any) -> None:
        """Find out whether what the user's step logs is monitored."""
        self.monitored = module.automatic_optimization and _is_monitored(module.trainer)

    def own_step(self, step: Step) -> Tensor | None:
        """Count the batch in its classes' means, in a task's first epoch; the user's step is made for its logs only."""
        module, trainer = step.module, step.module.trainer
        stream = getattr(trainer, "datamodule", None)
        if stream is not None and trainer.current_epoch != stream.task.first_epoch:
            return None
        with torch.no_grad():
            features, targets = module.head_input(step.inputs), step.targets
            rows, labels, weights = gather_rows(features, targets, *_shares(trainer, stream, len(targets)))
            self.bank.update(rows, labels, weights)
            if not self.monitored:
                return None
            step.users_step()
        return zero_through((p for p in module.parameters() if p.requires_grad), module.device)

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """``(B, C)`` comparisons with the means; -inf for classes without samples."""
        answer: Tensor = self.bank(features)
        return answer.to(logits.dtype)

    def expect_samples(self, module: Any, batch_idx: int, stage: str) -> None:
        """Look for known features of the images that come next."""
        stream = getattr(module.trainer, "datamodule", None)
        if self.cache_features and announce(stream, self.bypass.cache, batch_idx, stage):
            self.bypass.watch()

    def forget_samples(self, module: Any) -> None:
        """The next pass is over images that nobody announced."""
        self.bypass.release()


class PrototypeMixin(ContinualMixin):
    """Classifies by class means of the head's input: ``class MyModel(PrototypeMixin, LightningModule)``.

    In ``setup``, :meth:`configure_continual` comes first, then :meth:`add_prototypes`.
    """

    def add_prototypes(self, bank: PrototypeBank, cache_features: bool = True) -> None:
        """Freeze the module and let the means answer; see :class:`ClassMeans`."""
        self.add_method("prototypeclassifier", ClassMeans(self, bank, cache_features))

    def train(self, mode: bool = True) -> Any:
        """Everything stays in eval mode: nothing is trained, and features must not depend on dropout."""
        parts = self.continual.parts.values() if hasattr(self, "continual") else ()
        return super().train(mode and not any(isinstance(part, ClassMeans) for part in parts))


def _is_monitored(trainer: Any) -> bool:
    """Whether a callback or a schedule waits for a logged value."""
    schedules = (config.monitor for config in trainer.lr_scheduler_configs if config.reduce_on_plateau)
    return any((*schedules, *(getattr(callback, "monitor", None) for callback in trainer.callbacks)))


def _shares(trainer: Any, stream: Any, local: int) -> tuple[int, int | None]:
    """An upper bound of any process's rows, and how many of this one's count."""
    if stream is None or trainer.world_size == 1:
        return local, None
    real = stream.train_batch(trainer.fit_loop.batch_idx).real
    return -(-trainer.train_dataloader.batch_size // trainer.world_size), int(real)


def _forget_features(part: nn.Module, keys: Any) -> None:
    assert isinstance(part, ClassMeans)
    part.bypass.cache.clear()  # other weights, other features
