"""MEMO: all tasks share the first parts of the network, and each has the last ones of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_cl.callbacks.architecture.dynamically_expandable import DynamicallyExpandable, GrowingFeatures
from lightning_cl.nn.guard import whole
from lightning_cl.nn.weights import trained
from lightning_cl.training.last_stage import last_part


class SpecialisedBlocks(GrowingFeatures):
    """A copy of the last blocks for every task."""

    def __init__(self, module: Any, info: Any, method: MEMO, stage: str) -> None:
        super().__init__(module, info, method, stage)
        self.train_base = method.train_base

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """As the base; after the first task the shared parts too, unless they are trained on."""
        yield from super().protected(module)
        if not self.train_base and len(self.trunks):
            yield from whole(self.shared(module))

    def shared(self, module: Any) -> list[Tensor]:
        """Trained parameters before the specialised blocks."""
        own = [*self.trunks.weights(module).values(), *module.continual_head.parameters()]
        known = {id(p) for p in [*own, *module.continual.parts.parameters()]}
        return [p for p in trained(module).values() if id(p) not in known]


@dataclass(eq=False)
class MEMO(DynamicallyExpandable):
    """Memory-efficient expandable model (MEMO; Zhou et al., ICLR 2023, arXiv:2205.13218).

    ``f(x) = [e_1(g(x)), ..., e_t(g(x))]``: the first parts ``g`` of the network are shared by all tasks, and each task
    has specialised blocks ``e_t``, which begin as those of the task before ended; earlier ones stay, in eval mode.
    Head, auxiliary loss and weight alignment are those of :class:`DynamicallyExpandable`. ``g`` is run once a pass, and
    every task's blocks once; gradients of all of them reach ``g``, on which earlier blocks answer otherwise than
    before, so that a memory has to cover their classes: put :class:`ExperienceReplay` beside it. Needs task boundaries;
    keeps the specialised blocks of every task. Works on any module with a linear class head behind blocks.

    Args:
        strength: Weight of the auxiliary loss, at least 0; that of the released code.
        train_base: Whether ``g`` is trained after the first task, as the released command does.
        stage: Dotted path of the first specialised part; parts that are registered behind it belong to it. ``None``:
            the last one of ``layer1`` to ``layer4`` of a ResNet, of ``stages``, or of the ``blocks`` of a transformer;
            in another network its last trained part before the head.

    Raises:
        ValueError: If a number is out of its range; when attached, for a head that is not linear, a module that
            trains nothing before it, or without stages; in ``setup``, on an online stream.
    """

    state_key: ClassVar[str] = "lightning_cl.MEMO"
    needs_forward: ClassVar[bool] = False

    train_base: bool = True
    stage: str | None = None

    def build(self, pl_module: Any, info: Any) -> SpecialisedBlocks:
        """No copy yet."""
        self.check_head(pl_module)
        does = "MEMO shares the first parts of a network and copies its last ones"
        stage = last_part(pl_module, self.stage, does, "the first part that each task gets of its own")
        return SpecialisedBlocks(pl_module, info, self, stage)
