"""Second views of a step's images, and passes over several groups of rows at once, for contrastive losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_cl.nn.views import contrastive_view
from lightning_cl.training.global_batch import own_part, part_rows
from lightning_cl.training.memory import Drawn
from lightning_cl.training.step import Step
from lightning_cl.training.step_seed import step_seed


@dataclass(frozen=True)
class View:
    """How a second view of an image differs from the first; see :func:`~lightning_cl.nn.views.contrastive_view`."""

    least_area: float
    flip: bool
    jitter: float
    gray: float

    def of_stream(self, step: Step, purpose: int) -> Any:
        """A view of the step's inputs, where they are images; else the inputs."""
        return self.of(step.inputs, *own_part(step.module), step_seed(step.module, purpose))

    def of_drawn(self, module: Any, drawn: Drawn, purpose: int) -> Any:
        """A view of a batch from the memory, where it is of images; else its inputs."""
        return self.of(drawn.inputs, drawn.start, drawn.total, step_seed(module, purpose))

    def of(self, inputs: Any, start: int, total: int, seed: int) -> Any:
        """Draws for all ``total`` rows, and the view of those from ``start`` on."""
        if not isinstance(inputs, Tensor) or inputs.ndim != 4:
            return inputs
        draws = torch.rand(total, 9, generator=torch.Generator().manual_seed(seed))
        own = draws[part_rows(start, len(inputs), total)]
        return contrastive_view(inputs, own, self.least_area, self.flip, self.jitter, self.gray)


def learn_features(step: Step, groups: Sequence[Any]) -> list[Tensor]:
    """``(n, D)`` what the head is given for each group of inputs, in one pass where all are tensors of one shape."""
    shapes = {tuple(group.shape[1:]) if isinstance(group, Tensor) else None for group in groups}
    if len(shapes) > 1 or None in shapes:
        return [step.learn(group)[1].features for group in groups]
    features = step.learn(torch.cat(list(groups)))[1].features
    return list(features.split([len(group) for group in groups]))
