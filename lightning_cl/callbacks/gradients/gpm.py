"""GPM: steps leave what layers answer to the inputs of earlier tasks as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import check_at_least, check_share
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.input_grams import has_input_rows, input_grams, input_width
from lightning_cl.nn.subspace import StepProjection, SubspaceMemory
from lightning_cl.nn.weights import trained
from lightning_cl.training import MethodModule, TaskData
from lightning_cl.training.batch import call_with
from lightning_cl.training.evaluation_mode import evaluating


class ProjectedSteps(MethodModule):
    """The input subspace of every linear layer and convolution but the head."""

    watched: Tensor

    def __init__(self, module: Any, energy: float, growth: float) -> None:
        super().__init__()
        self.energy, self.growth, self.finished = energy, growth, Counter()
        head, known = module.continual_head, module.named_modules()
        layers = {n: m for n, m in known if has_input_rows(m) and m.weight.requires_grad and m is not head}
        self.layers = tuple(layers)
        self.memories = nn.ModuleDict({_key(n): SubspaceMemory(input_width(m)) for n, m in layers.items()})
        self.register_buffer("watched", torch.zeros(len(layers), dtype=torch.bool))
        self._step: StepProjection | None = None

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Remember the weights before the step."""
        weights = trained(module, optimizer)
        known = [name for name in self.layers if f"{name}.weight" in weights]
        memories = [self._memory(name) for name in known]
        self._step = StepProjection([weights[f"{name}.weight"] for name in known], memories)
        if self.finished.value:
            self._step.remember()

    def after_step(self, module: Any, optimizer: Any) -> None:
        """Take out of the step what changes the answers to earlier inputs."""
        if self.finished.value and self._step is not None:
            self._step.edit()
        self._step = None

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """After the first task, whatever has no subspace: biases, norms, tokens; of the head only what is masked."""
        if self.finished.value:
            watched = self.watched.tolist()
            free = {f"{name}.weight" for name, known in zip(self.layers, watched, strict=True) if known}
            head = {id(p) for p in module.continual_head.parameters()}
            for name, parameter in trained(module).items():
                if name not in free and id(parameter) not in head:
                    yield parameter, torch.ones_like(parameter, dtype=torch.bool)

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Add the directions of the task's inputs."""
        share = min(1.0, self.energy + self.growth * self.finished.value)
        layers = {name: module.get_submodule(name) for name in self.layers}
        with evaluating(module), input_grams(layers) as grams:
            for inputs, targets, _ in data.batches():
                if len(targets):
                    call_with(module, inputs)
        for index, name in enumerate(self.layers):
            gram = all_sum(grams[name])
            self.watched[index] |= gram.any()
            if bool(gram.any()):
                self._memory(name).extend_gram(gram, share, crossing=self.finished.value > 0)
        self.finished.set(self.finished.value + 1)

    def _memory(self, name: str) -> SubspaceMemory:
        memory = self.memories[_key(name)]
        assert isinstance(memory, SubspaceMemory)
        return memory


def _key(name: str) -> str:
    return name.replace(".", "/")


@dataclass(eq=False)
class GPM(ContinualMethod):
    """Gradient projection memory (GPM; Saha et al., ICLR 2021, arXiv:2103.09762).

    At a task's end the strongest directions of every layer's inputs join its basis ``U``, until ``energy + growth * t``
    of the inputs' squared length lies in it (in the first task, as in the official code, the direction that reaches the
    share is left out). Steps become ``dW - dW U U^T``: a step and not a gradient, so that it holds under momentum and
    Adam. After the first task all that has no such inputs (biases, norms, tokens) stays, but for the rows of the head
    whose classes compete. Inputs are those of all of a task's samples on the evaluation transform, where the official
    code takes 125. Works on modules of ``nn.Linear`` and ``nn.Conv2d`` without groups; needs the end of a task; keeps a
    ``(D, D)`` basis for each layer and no sample. Batch norm's running statistics still move: freeze them.

    Args:
        energy: Share of the inputs that the basis holds after the first task, in [0, 1]; 1 leaves hardly any direction.
        growth: Added to it with every task, at least 0; both defaults are the official code's for CIFAR-100.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        train_mask: Which classes compete in the training loss.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.

    Raises:
        ValueError: If a number is out of its range; when attached, without a layer whose steps can be projected.
    """

    state_key: ClassVar[str] = "lightning_cl.GPM"
    constrains: ClassVar[bool] = True

    energy: float = 0.97
    growth: float = 0.003
    _: KW_ONLY
    train_mask: TrainMask = "task"
    reset_optimizer: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self, "energy")
        check_at_least(self, 0, "growth")

    def build(self, pl_module: Any, info: Any) -> ProjectedSteps:
        """An empty basis for every layer."""
        part = ProjectedSteps(pl_module, self.energy, self.growth)
        if not part.layers:
            raise ValueError(
                f"{type(pl_module).__name__} trains no `nn.Linear` or `nn.Conv2d` without groups besides its head, so "
                "there is no step to project; train such a layer, or use another method."
            )
        return part
