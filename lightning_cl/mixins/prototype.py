"""A classifier of class means in a frozen module: the training step only counts, the head only compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_cl.mixins.announcing import announce
from lightning_cl.mixins.base import ContinualMixin, expect_eval_mode
from lightning_cl.mixins.batch import unpack
from lightning_cl.mixins.bypass import FeatureBypass
from lightning_cl.nn.distributed import gather_rows
from lightning_cl.nn.head_layer import is_map, pooled
from lightning_cl.nn.prototypes import PrototypeBank

if TYPE_CHECKING:
    from collections.abc import Iterator


class PrototypeMixin(ContinualMixin):
    """Replaces what the head answers by comparisons with class means; nothing is trained.

    ``configure_continual`` comes first, then :meth:`add_prototypes`.
    """

    prototypes: PrototypeBank

    def add_prototypes(self, bank: PrototypeBank, cache_features: bool = True) -> None:
        """Freeze the module and let ``bank`` make the logits from the head's input.

        Args:
            bank: Registered as the submodule ``prototypes``.
            cache_features: Compute the feature of an evaluation image once per run. Needs evaluation transforms
                without randomness.
        """
        self.prototypes = bank.to(self.continual_head.weight.device)
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        # DDP and optimisers want something to hold on to; its gradient is zero and its rows are protected.
        for parameter in self.continual_head.parameters():
            parameter.requires_grad_(True)
        self.__dict__["_bypass"] = FeatureBypass(self, self.continual_head)
        self.__dict__["_cache_features"] = cache_features
        expect_eval_mode()
        # Before the class mask, which was put on the head first, so that it masks the new logits.
        self.continual_head.register_forward_hook(self._compare, prepend=True)
        self.eval()  # here too: the Trainer keeps the mode that it finds, and may never call `train`

    @property
    def feature_bypass(self) -> FeatureBypass:
        """Answers evaluation passes over known images without the backbone."""
        bypass: FeatureBypass = self.__dict__["_bypass"]
        return bypass

    def _compare(self, head: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Forward hook of the head: logits of the means, in as many columns as the head has."""
        logits: Tensor = self.prototypes(pooled(head, args[0]).flatten(1)).to(output.dtype)
        missing = output.shape[1] - logits.shape[1]
        logits = nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing else logits
        return logits[..., None, None].expand_as(output) if is_map(head, output) else logits

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.feature_bypass.cache.clear()  # other weights, other features

    def train(self, mode: bool = True) -> Any:
        """Everything stays in eval mode: nothing is trained, and features must not depend on dropout."""
        return super().train(False)

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Count the batch in its classes' means (in a task's first epoch); the loss is zero and moves nothing."""
        stream = getattr(self.trainer, "datamodule", None)
        if stream is None or self.trainer.current_epoch == stream.task.first_epoch:
            with torch.no_grad():
                self._count(batch, *args, **kwargs)
        return sum((p.sum() * 0.0 for p in self.continual_head.parameters()), torch.zeros((), device=self.device))

    def _count(self, batch: Any, *args: Any, **kwargs: Any) -> None:
        inputs, targets = unpack(batch, self.continual.batch_keys)
        features, targets, weights = gather_rows(self.head_input(inputs), targets, *self._shares(len(targets)))
        self.prototypes.update(features, targets, weights)

    def _shares(self, local: int) -> tuple[int, int | None]:
        """An upper bound of any rank's rows, and how many of this rank's rows count."""
        stream: Any = getattr(self.trainer, "datamodule", None)
        if stream is None or self.trainer.world_size == 1:
            return local, None
        loader: Any = self.trainer.train_dataloader
        real = stream.train_batch(self.trainer.fit_loop.batch_idx).real
        return -(-loader.batch_size // self.trainer.world_size), int(real)

    def protected_rows(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """All of the head: it is not used, and stays as it was."""
        for parameter in self.continual_head.parameters():
            yield parameter, torch.arange(len(parameter))

    # ------------------------------------------------------------------ features of evaluation images

    def expect_images(self, batch_idx: int, stage: str) -> None:
        """Tell the cache of features which images come next."""
        super().expect_images(batch_idx, stage)
        bypass, stream = self.feature_bypass, getattr(self.trainer, "datamodule", None)
        if self.__dict__["_cache_features"] and announce(stream, bypass.cache, batch_idx, stage):
            bypass.watch()

    def forget_images(self) -> None:
        """The next pass is over images that nobody announced."""
        self.feature_bypass.release()
        super().forget_images()
