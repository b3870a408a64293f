"""Stages of training, each with a small part of what came before: rehearsal that is planned with the stream."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import mix_seed, permutation
from lightning_cl.datamodules.scenarios.base import Scenario
from lightning_cl.datamodules.scenarios.derived import DerivedScenario


class StagedMixture(DerivedScenario):
    """Staged fine-tuning with a share of all earlier stages (dual-stage mixed fine-tuning, DMT; arXiv:2310.05492).

    Stage ``t`` holds all samples of task ``t`` of another scenario, and of each earlier task ``j`` the same
    ``round(keep_fraction * n_j)`` samples, drawn once from the seed. With 0 it is that scenario, with 1 every stage
    holds all there was (cumulative training). What is read again counts as rehearsal: those samples must be kept.
    Evaluation is that of the other scenario.

    Args:
        stages: The scenario with the tasks; not an online one, and none that asks to forget or hides labels.
        keep_fraction: ``k``, in [0, 1]; the paper's choice is 1/256.
        seed: Of the draw; ``None``: the stream's.

    Raises:
        ValueError: If ``keep_fraction`` is not in [0, 1], or the stages are of another kind.
    """

    def __init__(self, stages: Scenario, keep_fraction: float = 1 / 256, seed: int | None = None) -> None:
        if not 0 <= keep_fraction <= 1:
            raise ValueError(f"`keep_fraction` is {keep_fraction}; give a share of each stage's samples in [0, 1].")
        if stages.order != "shuffled" or stages.requests or stages.labelled_tasks is not None or stages.evaluates_all:
            raise ValueError(
                f"`stages` is a {type(stages).__name__}, whose tasks cannot be mixed: they come in one ordered pass, "
                "ask to forget, or hide labels; give a scenario with labelled tasks, such as `ClassIncremental`."
            )
        super().__init__(stages)
        self.keep_fraction, self.seed = keep_fraction, seed
        again = f"{100 * keep_fraction:.4g} % of the samples of each stage are read again in every later one"
        self.remarks = (again, *stages.remarks)

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each stage's own samples and of those kept of earlier ones, sorted ascending, none twice."""
        tasks = self.scenario.train_tasks(labels, domains, num_classes, seed)
        drawn = mix_seed(seed if self.seed is None else self.seed, 0xD37)
        counts = [kept_count(len(own), self.keep_fraction) for own in tasks]
        kept = [own[permutation(len(own), drawn, at)[: counts[at]]] for at, own in enumerate(tasks)]
        return [torch.cat([own, *kept[:at]]).unique() for at, own in enumerate(tasks)]


def kept_count(samples: int, share: float) -> int:
    """``round(share * samples)``, halves up."""
    return int(share * samples + 0.5)
