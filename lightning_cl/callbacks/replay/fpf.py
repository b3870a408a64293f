"""FPF: a few weights that are prone to forget are tuned on the memory at every task's end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.weights import trained
from lightning_cl.training import MethodModule, TaskData
from lightning_cl.training.memory_steps import tune_on_memory


def prone_weights(module: Any, select: str | None) -> list[str]:
    """Names of the trained weights that a phase tunes: those of norms and of the head, or those that match ``select``.

    Raises:
        ValueError: If there are none.
    """
    weights, head = trained(module), {id(p) for p in module.continual_head.parameters()}
    norms = {id(p) for m in module.modules() if "norm" in type(m).__name__.lower() for p in m.parameters(recurse=False)}
    if select is None:
        found = [name for name, p in weights.items() if id(p) in norms | head]
    else:
        found = [name for name in weights if re.search(select, name)]
    if not found:
        raise ValueError(
            f"`select={select!r}` matches none of the trained parameters of {type(module).__name__} (such as "
            f"{', '.join(list(weights)[:3])}); give a regular expression of their names."
        )
    return found


class ProneWeights(MethodModule):
    """A phase on the memory, at every task's end."""

    def __init__(self, names: list[str], steps: int, lr: float) -> None:
        super().__init__()
        self.names, self.steps, self.lr = names, steps, lr

    def end_task(self, module: Any, data: TaskData) -> None:
        """Tune on the memory."""
        self.tune(module)

    def tune(self, module: Any) -> None:
        """One phase; all other weights stay bit for bit."""
        weights = trained(module)
        tune_on_memory(module, [weights[name] for name in self.names if name in weights], self.steps, self.lr)


@dataclass(eq=False)
class FPF(ExperienceReplay):
    """Forgetting prioritized fine-tuning (FPF; Zhao et al., ICML 2023, arXiv:2304.04158), on experience replay.

    Remembered samples join every batch as in :class:`ExperienceReplay`, and at every task's end, before its evaluation,
    the weights that are prone to forget are tuned on the memory for ``steps`` steps of SGD (momentum 0.9, a cosine from
    ``lr`` to 0, cross-entropy over the classes that compete) while all others stay. Stands beside any method that
    trains by gradient descent and has no memory of its own. No code of the paper is public and its choice of modules
    was made by measuring; the defaults are of our own: norms and the head. Batch norm's statistics move in a phase.
    Works on any module with a class head whose ``forward`` returns the logits; needs a memory and task ends.

    Args:
        batch_size: Remembered samples in every batch and in every step of a phase, over all processes.
        steps: Of a phase, at least 0; with 0 it is plain experience replay.
        lr: Of a phase, above 0.
        select: Regular expression of the names of the weights that a phase tunes, e.g. ``"norm|blocks.11|head"``; norms
            and the head when ``None``.

    Raises:
        ValueError: As :class:`ExperienceReplay`, and for a number out of its range; if no weight matches.
    """

    state_key: ClassVar[str] = "lightning_cl.FPF"
    boundaries: ClassVar[Boundaries] = "taken"
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 5, "steps": 2}

    steps: int = at_least(0, default=200)
    lr: float = above(0, default=0.01)
    select: str | None = None

    def build(self, pl_module: Any, info: Any) -> ProneWeights:
        """The weights that a phase tunes."""
        return ProneWeights(prone_weights(pl_module, self.select), self.steps, self.lr)
