"""CoSO: attention's output matrices learn in a subspace that follows their gradients, outside those of old tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.adapters.linear_layers import first_linears
from lightning_cl.callbacks.arguments import above, at_least, choice, fraction, pattern
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.adapters import freeze_all_but
from lightning_cl.nn.adapters.injection import named_parts
from lightning_cl.nn.adapters.sites import ending
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.distributed import send_from_first_process
from lightning_cl.nn.gradient_subspace import GradientSubspace
from lightning_cl.nn.subspace import Side
from lightning_cl.nn.weights import key_of, trained
from lightning_cl.training import MethodModule, Step, TaskData
from lightning_cl.training.loss_terms import zero_through

#: The usual names of the layer behind the heads of an attention.
OUTPUTS = r"(?:self_)?att(?:n|ention)\.(?:proj|out_proj|o_proj|output\.dense)"


class FollowedGradients(MethodModule):
    """A subspace for each chosen matrix; the user's optimiser moves coordinates in it."""

    def __init__(self, module: Any, names: list[str], method: CoSO) -> None:
        super().__init__()
        self.method, self.names, self.steps = method, tuple(names), Counter()
        shapes = {name: module.get_submodule(name).weight.shape for name in names}
        sizes = method.rank, method.sketch, method.side
        spaces = {name: GradientSubspace(shape[0], shape[1], *sizes) for name, shape in shapes.items()}
        self.spaces = nn.ModuleDict({key_of(name): space for name, space in spaces.items()})
        self._moved: list[tuple[GradientSubspace, Tensor]] = []

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Divided by the temperature while training."""
        return logits / self.method.temperature if self.training else logits

    def losses(self, step: Step) -> dict[str, Tensor]:
        """A zero, for DDP waits for a gradient of every parameter; the coordinates' comes from the matrices' own."""
        if step.module.trainer.world_size == 1:
            return {}
        return {"coordinates": zero_through(self.spaces.parameters(), step.module.device)}

    @torch.no_grad()
    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Turn the gradient of each matrix into that of its coordinates, so that the matrix itself is left out."""
        moved = {id(p) for p in trained(module, optimizer).values()}
        pairs = [(self.space(name), module.get_submodule(name).weight) for name in self.names]
        self._moved = [(space, w) for space, w in pairs if w.grad is not None and id(space.reduced) in moved]
        for space, weight in self._moved:
            assert weight.grad is not None
            if self.steps.value % self.method.refresh == 0:
                space.follow(weight.grad, self.method.decay)
                send_from_first_process([space.directions, space.sketch])
            space.reduced.grad, weight.grad = space.reduce(weight.grad), None

    @torch.no_grad()
    def after_step(self, module: Any, optimizer: Any) -> None:
        """Move the matrices as their coordinates moved."""
        for space, weight in self._moved:
            weight.add_(space.step())
        if self._moved:
            self.steps.set(self.steps.value + 1)
        self._moved = []

    def start_task(self, module: Any, task: Any) -> None:
        """The first step looks for directions anew."""
        self.steps.set(0)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Keep later steps out of the directions that this task's gradients had."""
        for name in self.names:
            self.space(name).end_task(self.method.energy)

    def space(self, name: str) -> GradientSubspace:
        """Of a layer."""
        found = self.spaces[key_of(name)]
        assert isinstance(found, GradientSubspace)
        return found


@dataclass(eq=False)
class CoSO(TaskwiseMethod):
    r"""Continuous subspace optimisation (CoSO; Cheng et al., NeurIPS 2025, arXiv:2505.11816).

    Only the output matrices ``W`` of the attentions (without biases) and the head learn. Of a gradient ``G`` the part
    ``G' = G - M M^T G`` outside earlier tasks' directions is taken; every ``refresh`` steps ``P`` becomes its ``rank``
    strongest left singular vectors. The user's optimiser sees ``P^T G'`` (``rank`` rows) in place of ``G``, so that its
    moments live in the subspace, and ``W`` moves by ``P`` times its step; weight decay does not reach ``W``. A sketch
    of ``sketch`` columns (frequent directions) sums up what ``G'`` was; at a task's end its strongest directions join
    ``M``, as many as hold less than ``energy``. The user's loss is on logits over ``temperature`` while training.
    Singular vectors have the sign of their largest element here, which the released code leaves to the library.
    ``side="out"`` is that of the released code; with ``"in"`` (right singular vectors, ``G - G M M^T``) steps leave
    what the layer answers to inputs outside of new directions as it is, which is what the paper argues with. Defaults
    are those of the released code for CIFAR-100 (Adam with ``eps=1e-6``, 3e-4, the head 5e-4, no decay, 20 epochs).
    Needs the end of a task, no pass over its data; keeps ``D (D + rank + sketch)`` numbers a matrix and no sample; a
    step costs two decompositions of ``(D, D)`` a matrix each ``refresh`` steps. Works on any network whose attention
    has a linear layer behind its heads.

    Args:
        rank: ``r1``, at least 1; at most the width is used.
        sketch: ``r2``, at least 1; the same.
        refresh: ``K``, steps between decompositions, at least 1.
        energy: In [0, 1]; with 0 no direction is kept for earlier tasks.
        temperature: Above 0.
        decay: ``rho`` of the sketch, in [0, 1].
        side: ``"out"`` or ``"in"``.
        at: Regular expression of the ends of the layers' names; ``None``: usual names, such as ``attn.proj``.

    Raises:
        ValueError: If a number is out of its range or ``at`` no regular expression; when attached, if no layer has
            such a name, or one that has no matrix as its weight.
    """

    state_key: ClassVar[str] = "lightning_cl.CoSO"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    adds_loss: ClassVar[bool] = True
    adapts_backbone: ClassVar[bool] = True
    works_on: ClassVar[str] = "any transformer"
    small: ClassVar[dict[str, Any]] = {"rank": 4, "sketch": 6, "at": r"attn\.proj|mlp\.fc2"}

    rank: int = at_least(1, default=15)
    sketch: int = at_least(1, default=100)
    refresh: int = at_least(1, default=1)
    energy: float = fraction(default=0.98)
    temperature: float = above(0, default=3.0)
    decay: float = fraction(default=1.0)
    side: Side = choice(("out", "in"), default="out")
    at: str | None = pattern(default=None)

    def build(self, pl_module: Any, info: Any) -> FollowedGradients:
        """Freeze all but the head and the chosen matrices."""
        names = self._layers(pl_module)
        freeze_all_but(pl_module, pl_module.continual.head_path, skip=("continual",))
        for name in names:
            pl_module.get_submodule(name).weight.requires_grad_(True)
        return FollowedGradients(pl_module, names, self)

    def _layers(self, pl_module: Any) -> list[str]:
        found = named_parts(pl_module, ending(self.at or OUTPUTS))
        wrong = {name: m for name, m in found.items() if not (isinstance(m, nn.Linear) and m.weight.requires_grad)}
        if wrong:
            name, layer = next(iter(wrong.items()))
            raise ValueError(
                f"`{name}` is a {type(layer).__name__}, or frozen, but CoSO trains the matrix of an `nn.Linear`; "
                "choose other layers with `at`, a regular expression."
            )
        if not found:
            raise ValueError(
                f"no layer of this {type(pl_module).__name__} is named as the output of an attention; its linear "
                f"layers are {first_linears(pl_module)}: name the layers with `at`, a regular expression."
            )
        return list(found)
