"""SHARP-style replay: what the first parts of a network made of earlier samples is remembered, in 8 bits a number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay, ReplayStore
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.guard import whole
from lightning_cl.nn.heads.neighbors import neighbor_logits
from lightning_cl.nn.losses import supervised_contrastive
from lightning_cl.nn.precision import wide
from lightning_cl.nn.quantization import Quantized, dequantize, quantize
from lightning_cl.nn.weights import trained
from lightning_cl.training import MethodModule, Step, TaskData
from lightning_cl.training.evaluation_mode import evaluating
from lightning_cl.training.find_modules import part_at
from lightning_cl.training.global_batch import drawn_batch, global_batch, term_of_all
from lightning_cl.training.last_stage import last_part
from lightning_cl.training.loss_terms import zero_through
from lightning_cl.training.memory import Drawn
from lightning_cl.training.transfer import samples_at


class HiddenReplay(MethodModule):
    """The parts in front of the stage, and the features of all remembered samples, which answer."""

    makes_logits = True
    loss_factor = 0.0
    references: Tensor
    owners: Tensor

    def __init__(self, module: Any, method: SHARP, stage: str) -> None:
        super().__init__()
        self.temperature, self.neighbors, self.finished = method.temperature, method.neighbors, Counter()
        width = module.continual_head.in_features
        self.register_buffer("references", torch.zeros(method.memory_size, width))
        self.register_buffer("owners", torch.full((method.memory_size,), -1))  # their classes
        names = [name for name, _ in module.named_modules() if not f"{name}.".startswith("continual.")]
        before = names[: names.index(stage)]
        self.front = tuple(n for n in before if n and not f"{stage}.".startswith(f"{n}."))
        self._front_weights = tuple(n for n in trained(module) if n.rpartition(".")[0] in before)
        self._joining: Tensor | None = None  # rows that join the next pass behind the front
        self._joined = 0  # how many did
        self.shape = torch.Size()  # of what the stage is given of a sample
        self._entered: list[Tensor] | None = None  # what it is given, where somebody asks
        self._drawn: Drawn | None = None
        part_at(module, stage, "stage").register_forward_pre_hook(self._enter)

    def _enter(self, stage: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Forward pre-hook of the stage: remembered rows stand behind the others; a front at rest gets no gradient."""
        hidden, rows = given[0], self._joining
        self._joining, self._joined = None, 0 if rows is None else len(rows)
        if self.finished.value:
            hidden = hidden.detach()
        if rows is not None:
            hidden = torch.cat([hidden, rows.to(hidden)])
        self.shape = hidden.shape[1:]
        if self._entered is not None:
            self._entered.append(hidden)
        return (hidden, *given[1:])

    # ------------------------------------------------------------------ a training step

    def start_step(self, step: Step) -> None:
        """Draw what joins the pass; after the first task, the front is in eval mode."""
        self._drawn = step.module.recall()
        self._joining = None if self._drawn is None else unpacked(self._drawn.extras)
        for name in self.front if self.finished.value else ():
            step.module.get_submodule(name).training = False

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """The votes of the nearest references; in training, and before there are any, the head's own logits."""
        joined, self._joined = self._joined, 0
        logits = logits[: len(logits) - joined]
        known = self.owners >= 0
        if module.training or joined or not bool(known.any()):
            return logits
        votes = neighbor_logits(
            wide(features), self.references[known], self.owners[known], logits.shape[1], self.neighbors
        )
        return votes.to(logits.dtype)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The supervised contrastive loss of the stream's features and the memory's."""
        module, drawn, features = step.module, self._drawn, wide(step.calls[0].features)
        self._drawn = None
        rows, labels, _ = global_batch(module, features[: len(step.targets)], step.targets)
        if drawn is not None:
            more, theirs = drawn_batch(module, drawn, features[len(step.targets) :])
            rows, labels = torch.cat([rows, more]), torch.cat([labels, theirs])
        term = term_of_all(module, supervised_contrastive(rows, labels, self.temperature))
        if self.finished.value and module.trainer.world_size > 1:
            term = term + zero_through(self._resting(module), module.device)
        return {"sharp": term}

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Without a gradient no optimiser moves the front, whatever momentum and decay it has."""
        for parameter in self._resting(module):
            parameter.grad = None

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """The front, after the first task."""
        return whole(self._resting(module))

    def _resting(self, module: Any) -> list[nn.Parameter]:
        return [module.get_parameter(name) for name in self._front_weights] if self.finished.value else []

    # ------------------------------------------------------------------ a task's end

    def end_task(self, module: Any, data: TaskData) -> None:
        """Choose samples of the task, keep what the stage is given of them, and take all references anew."""
        memory = module.continual.memory
        self.finished.set(self.finished.value + 1)
        features, labels, positions = data.all_features()
        rows, slots = memory.buffer.place(labels, features)
        chosen = positions.cpu()[rows]
        places = dict(zip(chosen.tolist(), slots.tolist(), strict=True))
        for hidden, _, found in data.over(chosen).features(partial(self._hidden, module)) if len(rows) else ():
            packed = quantize(hidden.view(-1, *self.shape))
            where = torch.tensor([places[place] for place in found.tolist()])
            for name in ("codes", "low", "step"):
                memory.write_extra(name, where, getattr(packed, name))
        self._refer(module, data)

    def _hidden(self, module: Any, inputs: Any) -> Tensor:
        """``(B, D)`` what the stage is given, each sample in one row."""
        self._entered = []
        module.head_input(inputs)
        (hidden,), self._entered = self._entered, None
        return hidden.flatten(1).float()

    def _refer(self, module: Any, data: TaskData) -> None:
        """Features of all that is remembered, which joins passes of one sample."""
        memory, layout = module.continual.memory, module.trainer.datamodule.layout
        inputs, _ = samples_at(module, layout.train_index[data.task.index][:1])
        self.owners.copy_(memory.buffer.labels)
        for slots in memory.buffer.used.split(memory.batch_size):
            self._joining = unpacked(memory.read_extras(slots, module.device))
            with evaluating(module):
                self.references[slots] = module.head_input(inputs)[1:].to(self.references)


def unpacked(extras: dict[str, Tensor]) -> Tensor:
    """``(n, ...)`` remembered activations."""
    return dequantize(Quantized(**extras))


@dataclass(eq=False)
class SHARP(ExperienceReplay):
    """Hidden-activation replay in the style of SHARP (Gurbuz et al., arXiv:2305.18563).

    The memory holds no samples but what a stage of the network is given of them in eval mode, in 8 bits a number
    between the least and the largest of a sample. In every step a batch of it joins that of the stream in front of the
    stage, so that a step makes one pass, and the supervised contrastive loss on what reaches the head takes the place
    of the user's loss. The ``neighbors`` nearest remembered features (by the cosine) vote for the class; they are taken
    anew when a task ends. After the first task all in front of the stage (what the network registers before it) stays
    bit for bit, in eval mode, so what is remembered stays true; it then costs no backward pass.

    Left out is the paper's sparse network, in which single units mature, drop connections and grow others: there the
    front changes where it is not mature yet, and the activations of the last task are kept alone; here they are of all
    tasks, in equal shares of their classes, chosen by herding. Works on modules whose stages are called once in a pass,
    with a tensor; needs task boundaries, so that while a task is trained evaluations know the classes of earlier ones
    alone. Keeps ``D`` bytes for an activation of ``D`` numbers, and a pass over each task when it ends.

    Args:
        memory_size: Slots of the memory, at least one a class.
        batch_size: Remembered activations in every training batch, over all processes.
        temperature: Of the loss, above 0; the paper's are 0.05 to 0.2.
        neighbors: Of a vote, at least 1; the paper's.
        stage: Dotted path of the part whose input is remembered. ``None``: the last one of ``layer1`` to ``layer4`` of
            a ResNet, of ``stages``, or of the ``blocks`` of a transformer; in another network its last trained part
            before the head. An earlier one learns more and remembers more bytes.
        train_mask: Of no effect.

    Raises:
        ValueError: As :class:`ExperienceReplay`, and for a number out of its range; when attached, without stages or
            for a memory smaller than the number of classes; in ``setup``, on an online stream.
    """

    state_key: ClassVar[str] = "lightning_cl.SHARP"
    boundaries: ClassVar[Boundaries] = "needed"
    needs_task_end: ClassVar[Any] = ("remembers activations", "`SCR`, which remembers samples in every step")
    adds_loss: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True
    joins: ClassVar[bool] = False
    remembers_batches: ClassVar[bool] = False
    needs_every_class: ClassVar[bool] = True
    keeps_samples: ClassVar[bool] = False
    policy: ClassVar[Any] = "herding"  # type: ignore[misc]
    store: ClassVar[ReplayStore] = "index"  # type: ignore[misc]
    device: ClassVar[None] = None  # type: ignore[misc]
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 5, "neighbors": 3}

    temperature: float = above(0, default=0.1)
    neighbors: int = at_least(1, default=5)
    stage: str | None = None
    _: KW_ONLY
    reset_optimizer: bool = True

    def bytes_beside(self, pl_module: Any) -> int:
        """Those of what the stage was given of a sample in the last pass, and of its range."""
        shape: torch.Size = self.part_in(pl_module).shape
        return shape.numel() + 8

    def bytes_within(self, pl_module: Any) -> int:
        """Those of a reference and its class."""
        part: HiddenReplay = self.part_in(pl_module)
        return part.references[0].nbytes + part.owners[0].nbytes

    def build(self, pl_module: Any, info: Any) -> HiddenReplay:
        """References of nothing yet."""
        does = "SHARP remembers what the last parts of a network are given"
        stage = last_part(pl_module, self.stage, does, "the part whose input is remembered")
        return HiddenReplay(pl_module, self, stage)
