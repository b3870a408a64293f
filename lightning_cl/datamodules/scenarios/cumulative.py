"""Cumulative streams: every task also holds the samples of all tasks before it, as joint re-training needs."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from lightning_cl.datamodules.scenarios.base import Scenario
from lightning_cl.datamodules.scenarios.derived import DerivedScenario
from lightning_cl.datamodules.scenarios.forget import Forget


class Cumulative(DerivedScenario):
    """Another scenario, with the samples of all earlier tasks in every task: the past is kept as a whole.

    Evaluation is that of the other scenario. With :class:`ImbalanceAwareJoint` every task is a joint training from the
    same initial weights, with :class:`FineTuning` the usual cumulative baseline.

    Args:
        scenario: Of shuffled, labelled tasks that ask to forget nothing: ``FewShot(60, 5, 5)``, say.

    Raises:
        ValueError: If it is an online stream, has tasks without labels, or asks to forget.
    """

    def __init__(self, scenario: Scenario) -> None:
        other = type(scenario).__name__
        if scenario.order == "stream" or isinstance(scenario, Forget) or scenario.labelled_tasks is not None:
            raise ValueError(
                f"`scenario` is {other}, whose tasks cannot be added up: they arrive once, ask to forget, or have no "
                "labels; give one of shuffled, labelled tasks, such as `FewShot` or `ClassIncremental`."
            )
        super().__init__(scenario)
        self.remarks = (*scenario.remarks, "every task has the samples of all tasks before it, too")

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each task's samples and of all before it, sorted ascending."""
        tasks = self.scenario.train_tasks(labels, domains, num_classes, seed)
        return list(accumulate(tasks, lambda known, task: torch.cat([known, task]).unique()))
