"""Test-time adaptation: a labelled source domain, and then domains that come without labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lightning_cl.datamodules.scenarios.domain_incremental import DomainIncremental


class UnlabelledDomains(DomainIncremental):
    """One task per domain; the first come with labels, and the model adapts itself to the others without.

    In the training batches of the others -1 (``HIDDEN_LABEL``) stands in the place of every label, so a training step
    that asks for labels fails and does not learn; ``task.classes`` are those known before, the stream's table holds no
    label of theirs, and ``task.labelled`` tells a method. Evaluation has labels, as everywhere: every validation is
    over the evaluation samples of all domains, so column ``t`` of the accuracy matrix has the accuracy on a domain
    before the model adapted to it, and after.

    Args:
        domain_order: As in :class:`DomainIncremental`; the labelled domains come first.
        labelled: How many domains have labels; 0 for a model that is trained already.
        seed: Seed of the domain order; ``None``: the stream's.

    Raises:
        ValueError: If ``labelled`` is negative; from :meth:`train_tasks`, as :class:`DomainIncremental`, and if no
            domain is left without labels.
    """

    evaluates_all = True

    def __init__(
        self,
        domain_order: Literal["natural", "shuffled"] | str | os.PathLike[str] | Sequence[int | str] = "natural",
        labelled: int = 1,
        seed: int | None = None,
    ) -> None:
        super().__init__(domain_order, seed)
        if labelled < 0:
            raise ValueError(f"`labelled` is {labelled}; give a number of domains of at least 0.")
        self.labelled_tasks = labelled
        which = f"all domains but the first {labelled}" if labelled else "the domains"
        self.remarks = (f"{which} came without labels; a model adapted to each in its task",)

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each domain's samples, sorted ascending."""
        tasks = super().train_tasks(labels, domains, num_classes, seed)
        assert self.labelled_tasks is not None
        if self.labelled_tasks >= len(tasks):
            raise ValueError(
                f"`labelled` is {self.labelled_tasks}, but the source has {len(tasks)} domain(s), so none would be "
                "without labels; give a smaller number, or use `DomainIncremental`."
            )
        return tasks
