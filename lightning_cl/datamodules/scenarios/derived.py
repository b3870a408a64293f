"""The base of scenarios whose tasks are made of another scenario's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from lightning_cl.datamodules.scenarios.base import Scenario

if TYPE_CHECKING:
    from lightning_cl.datamodules.sources.base import Source


class DerivedScenario(Scenario):
    """Opens and evaluates as the scenario that its tasks are made of.

    Attributes:
        scenario: That scenario.
    """

    scenario: Scenario

    def __init__(self, scenario: Scenario) -> None:
        self.scenario, self.few_shot, self.multi_label = scenario, scenario.few_shot, scenario.multi_label

    def for_source(self, source: Source) -> Scenario:
        """With what the other scenario becomes for the source."""
        found = copy.copy(self)
        found.scenario = self.scenario.for_source(source)
        return found

    def eval_tasks(
        self,
        labels: Tensor,
        domains: Tensor | None,
        num_classes: int,
        seed: int,
        classes_per_task: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """Positions of each task's own evaluation samples, as the other scenario has them."""
        return self.scenario.eval_tasks(labels, domains, num_classes, seed, classes_per_task)
