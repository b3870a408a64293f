"""Intruder dimensions: new singular directions of the weights are counted at a task's end, and shrunk if wanted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import at_least, choice, fraction, pattern
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.adapters import Adapters, LoRA
from lightning_cl.nn.distributed import send_from_first_process
from lightning_cl.nn.intruder_dimensions import low_rank, repaired
from lightning_cl.nn.transformer_layers import fused_parts
from lightning_cl.nn.weights import Snapshot
from lightning_cl.training import MethodModule, TaskData
from lightning_cl.training.trained_body import trained_body

Reference = Literal["pretrained", "previous"]


class DirectionCheck(MethodModule):
    """The weights that are compared with, and what was found at the last task's end."""

    def __init__(self, module: Any, method: IntruderDimensions) -> None:
        super().__init__()
        self.top, self.threshold, self.factor = method.top, method.threshold, method.factor
        self.each_task, self.at = method.reference == "previous", method.at or ""
        self.reference = Snapshot(self.weights(module))
        self.found: dict[str, int] = {}
        self.missed: dict[str, float] = {}

    def banks(self, module: Any) -> dict[str, LoRA]:
        """Low-rank updates of one slot that other methods put at layers of the module, by the layers' weights."""
        parts = [part for part in module.modules() if isinstance(part, Adapters)]
        pairs = [(f"{name}.weight", part.bank(name)) for part in parts for name in part.names]
        return {name: bank for name, bank in pairs if type(bank) is LoRA and bank.slots == 1}

    def weights(self, module: Any) -> dict[str, Tensor]:
        """Matrices and kernels of the module by name, as they act: with what a low-rank update adds to a frozen one."""
        own: dict[str, Tensor] = {n: p for n, p in trained_body(module).items() if not n.startswith("continual.")}
        for name, bank in self.banks(module).items():
            weight = module.get_parameter(name)
            if bank.up.shape[-1] == len(weight):
                own[name] = weight + bank.delta(0)
        return {n: w for n, w in own.items() if _is_matrix(w) and re.search(self.at, n)}

    @torch.no_grad()
    def start_task(self, module: Any, task: Any) -> None:
        """Take the reference."""
        if self.each_task or not self.reference.taken:
            self.reference.take(self.weights(module))

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Count the intruders of every weight, and shrink them."""
        banks, self.found, self.missed, looked_at = self.banks(module), {}, {}, list[Tensor]()
        for name, now in self.weights(module).items():
            parts, before = fused_parts(name, now), self.reference[name]
            new, self.found[name] = repaired(before, now, parts, self.top, self.threshold, self.factor)
            weight, bank = module.get_parameter(name), banks.get(name)
            looked_at += [weight] if bank is None else [bank.down, bank.up]
            if new is not None and bank is None:
                weight.copy_(new)
            elif new is not None and bank is not None:
                down, up, self.missed[name] = low_rank((new - weight) / bank.scale, bank.down.shape[1])
                bank.down[0].copy_(down)
                bank.up[0].copy_(up.T)
        send_from_first_process(looked_at)  # singular vectors need not be the same bits on all devices


@dataclass(eq=False)
class IntruderDimensions(TaskwiseMethod):
    """Intruder dimensions and their repair (Shuttleworth et al., 2024, arXiv:2410.21228), beside any method.

    At every task's end the ``top`` leading left singular vectors ``u_j`` of each weight matrix are compared with those
    of the reference: ``u_j`` is an intruder if ``max_i |u_j . u_i|`` is below ``threshold``. Low-rank updates bring
    many of them, full fine-tuning few, and models with them forget more. The report has how many there are in each
    weight after each task. With ``factor < 1`` they are shrunk: ``W <- W + (factor - 1) sum_j sigma_j u_j v_j^T``; the
    original directions are not restored.

    It looks at the trained weights without the head, kernels of convolutions flattened and fused query, key and value
    projections (as their names and shapes tell) taken apart, and at layers with a LoRA of one slot (``LoRA`` in front
    of it in the list) as ``W + B A``. A repaired LoRA is the best update of its rank; what that misses of the repair is
    in the report. Needs task boundaries and no data, keeps a copy of the compared weights; costs two singular value
    decompositions a weight and task. Works on any module.

    Args:
        top: Leading vectors of each matrix, at least 1; the paper has 10.
        threshold: In [0, 1]; the paper has 0.5.
        factor: What is left of an intruder, in [0, 1]; 1 counts alone and changes no bit, 0.75 is the paper's.
        reference: The weights with which the fit began, the ``"pretrained"`` ones, or those at the ``"previous"``
            task's end.
        at: Regular expression that the names of the weights contain; ``None``: all.

    Raises:
        ValueError: If a number is out of its range or a choice unknown; when attached, if there is no weight to look
            at.
    """

    state_key: ClassVar[str] = "lightning_cl.IntruderDimensions"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    rewrites_weights: ClassVar[bool] = True
    constrains: ClassVar[bool] = True
    needs_head: ClassVar[bool] = False

    top: int = at_least(1, default=10)
    threshold: float = fraction(default=0.5)
    factor: float = fraction(default=0.75)
    reference: Reference = choice(Reference, default="pretrained")
    at: str | None = pattern(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        #: For every finished task the intruders of each weight, and what a LoRA misses of its repair.
        self.tasks: dict[int, dict[str, Any]] = {}

    def build(self, pl_module: Any, info: Any) -> DirectionCheck:
        """A copy of the weights that are compared with."""
        part = DirectionCheck(pl_module, self)
        if not part.reference.names:
            raise ValueError(
                f"IntruderDimensions looks at trained weights of two dimensions, but this {type(pl_module).__name__} "
                f"has none besides its head whose name contains {self.at or ''!r} (`at`); train some, or put `LoRA` in "
                "front of it in the list of callbacks."
            )
        return part

    def on_task_end(self, trainer: Any, pl_module: Any, task: Any) -> None:
        """Note what was found."""
        part = self.part_in(pl_module)
        self.tasks[task.index] = {"intruders": dict(part.found), "missed": dict(part.missed)}

    def report_facts(self) -> dict[str, Any]:
        """Intruders of all weights after each task, and of each; the share of each repair that its LoRA misses."""
        total = {str(task): sum(found["intruders"].values()) for task, found in self.tasks.items()}
        return {"intruders": total, "by_weight": {str(task): found for task, found in self.tasks.items()}}

    def state_dict(self) -> dict[str, Any]:
        """What was found so far."""
        return {"version": 1, "tasks": dict(self.tasks)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on."""
        self.tasks = dict(state_dict["tasks"])


def _is_matrix(weight: Tensor) -> bool:
    return weight.ndim > 1 and min(weight.flatten(1).shape) > 1
