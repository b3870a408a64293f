"""OnPro: prototypes of each batch are told apart, and classes that are close to each other come again mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above, at_least, choice, fraction
from lightning_cl.callbacks.replay.er_ace import seen_classes
from lightning_cl.callbacks.replay.experience_replay import OwnBatchReplay
from lightning_cl.nn.online_prototypes import (
    Mixture,
    class_contrast,
    class_means,
    draw_mixture,
    instance_contrast,
    prototype_contrast,
)
from lightning_cl.nn.precision import wide
from lightning_cl.training import MethodModule, Step
from lightning_cl.training.contrast import View, learn_features
from lightning_cl.training.global_batch import drawn_batch, global_batch, term_of_all
from lightning_cl.training.memory import Drawn
from lightning_cl.training.step_seed import step_seed

MixedPositive = Literal["self", "none", "dominant"]


class OnlinePrototypes(MethodModule):
    """The projection, and the prototypes that the memory's last batch had."""

    growing = ("prototypes", "known")
    prototypes: Tensor
    known: Tensor

    def __init__(self, num_classes: int, features: int, method: OnPro) -> None:
        super().__init__()
        self.method, self.view = method, View(method.least_area, method.flip, 0.0, method.gray)
        self.width = min(method.width, features)
        self.project = nn.Linear(features, self.width)
        self.register_buffer("prototypes", torch.zeros(num_classes, self.width))
        self.register_buffer("known", torch.zeros(num_classes, dtype=torch.bool))

    def start_step(self, step: Step) -> None:
        """The user's loss counts as long as nothing is remembered."""
        self.loss_factor = 0.0 if len(step.module.continual.memory.buffer) else 1.0

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Contrast of prototypes and of instances in the stream and in the memory; cross-entropy of the memory."""
        module, inputs = step.module, step.inputs
        views = self._turned(inputs)[1:] + self._turned(self.view.of_stream(step, 0x09))
        start = self._slice_start(step)
        parts = self._parts([step.features, *learn_features(step, views)], start)
        rows, labels, _ = global_batch(module, parts, step.targets)
        terms = {"onpro_stream": self._stream_term(module, rows, labels.long())}
        if len(module.continual.memory.buffer):
            terms |= self._memory_terms(step, start)
        return terms

    # ------------------------------------------------------------------ views and features

    def _turned(self, inputs: Any) -> list[Any]:
        """The inputs, and images turned by further quarters."""
        if not isinstance(inputs, Tensor) or inputs.ndim != 4 or inputs.shape[-1] != inputs.shape[-2]:
            return [inputs]
        return [inputs.rot90(k, (2, 3)) for k in range(self.method.rotations)]

    def _slice_start(self, step: Step) -> int:
        """Where the slice of the features begins that projections are compared with in this step."""
        room = step.features.shape[1] - self.width
        return step_seed(step.module, 0x51) % room if room > 0 else 0

    def _parts(self, groups: Sequence[Tensor], start: int) -> Tensor:
        """``(B, G * 2 * W)`` unit projections and slices of unit features of each group, side by side."""
        parts = []
        for features in map(wide, groups):
            unit = F.normalize(features, dim=1)
            parts += [F.normalize(wide(self.project(features)), dim=1), unit[:, start : start + self.width]]
        return torch.cat(parts, 1)

    def _unpacked(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """``(G, N, W)`` projections and slices."""
        parts = torch.stack(rows.split(self.width, 1))
        return parts[::2], parts[1::2]

    def _similarity(self, projections: Tensor, slices: Tensor) -> Tensor:
        """``(G * N, G * N)`` of the two views, each with all its turns, over the temperature."""
        g, f = projections.flatten(0, 1), slices.flatten(0, 1)
        return self.method.similarity * (g @ g.T + g @ f.T) / self.method.temperature

    def _labels(self, labels: Tensor, groups: int) -> Tensor:
        """Labels of all groups: an image turned otherwise is of another class."""
        turn = torch.arange(groups // 2, device=labels.device).repeat(2)
        return (labels + turn[:, None] * len(self.known)).flatten()

    # ------------------------------------------------------------------ terms

    def _stream_term(self, module: Any, rows: Tensor, labels: Tensor) -> Tensor:
        projections, slices = self._unpacked(rows)
        term = instance_contrast(self._similarity(projections, slices), self._labels(labels, len(projections)))
        return term_of_all(module, term + self._prototype_term(projections, labels)[0])

    def _prototype_term(self, projections: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The contrast of the prototypes of rows that are not turned; their means over both views; their classes."""
        (first, classes), (second, _) = (class_means(projections[i], labels) for i in (0, len(projections) // 2))
        return prototype_contrast(first, second), (first + second).detach() / 2, classes

    def _memory_terms(self, step: Step, start: int) -> dict[str, Tensor]:
        module, buffer = step.module, step.module.continual.memory.buffer
        known = self.known.nonzero().flatten()
        prototypes = (self.prototypes[known], known) if len(known) > 1 else None
        method, seed = self.method, step_seed(module, 0x0A)
        mixture = draw_mixture(buffer.labels, prototypes, method.batch_size, method.random, method.mixup, seed)
        drawn, second, share = self._read(module, mixture)
        with seen_classes(module.continual.mask):
            answers, call = step.learn(drawn.inputs)
        logits = wide(answers)
        loss = torch.lerp(
            F.cross_entropy(logits, drawn.labels, reduction="none"),
            F.cross_entropy(logits, second, reduction="none"),
            share.to(logits),
        ).mean()
        views = self._turned(drawn.inputs)[1:] + self._turned(self.view.of_drawn(module, drawn, 0x0B))
        rows, _ = drawn_batch(module, drawn, self._parts([call.features, *learn_features(step, views)], start))
        return {"onpro_labels": drawn.weight * loss, "onpro_memory": self._contrast_of_memory(module, rows, mixture)}

    def _read(self, module: Any, mixture: Mixture) -> tuple[Drawn, Tensor, Tensor]:
        """The mixed samples, the labels of what they are mixed with, and how much of it."""
        drawn, share = module.read(mixture.first), mixture.share
        own = share[drawn.start : drawn.start + len(drawn.labels)]
        own = own if len(own) else share[:1]  # a process without a sample repeats one
        if not isinstance(drawn.inputs, Tensor) or not drawn.inputs.is_floating_point() or not bool(share.any()):
            return drawn, drawn.labels, torch.zeros_like(own).to(drawn.labels.device)
        second, own = module.read(mixture.second), own.to(drawn.labels.device)
        weight = own.to(drawn.inputs).view(-1, *[1] * (drawn.inputs.ndim - 1))
        return drawn._replace(inputs=torch.lerp(drawn.inputs, second.inputs, weight)), second.labels, own

    def _contrast_of_memory(self, module: Any, rows: Tensor, mixture: Mixture) -> Tensor:
        held, share = module.continual.memory.buffer.labels, mixture.share
        first, second = held[mixture.first], held[mixture.second]
        dominant = torch.where(share > 0.5, second, first).to(rows.device)
        exact, pure = (1 - share) * first + share * second, (share == 0) | (first == second)
        kind, projections = self.method.mixed_positive, self._unpacked(rows)[0]
        labels = self._labels(dominant if kind == "dominant" else exact.to(rows.device), len(projections))
        asked = (pure if kind == "none" else torch.ones_like(pure)).to(rows.device).repeat(len(projections))
        term = class_contrast(self._similarity(*self._unpacked(rows)), labels, asked)
        apart, means, classes = self._prototype_term(projections, dominant)
        self.known.fill_(False)
        self.known[classes] = True
        self.prototypes[classes] = means.to(self.prototypes)
        return term_of_all(module, term + apart)


@dataclass(eq=False)
class OnPro(OwnBatchReplay):
    """Online prototypes (OnPro; Wei et al., ICCV 2023, arXiv:2308.00301).

    Four terms on a batch of the stream and one of the memory, each in two views, each turned by quarters:
    the contrast of instances, whose similarity ``similarity * (g g' + g f')`` has unit projections ``g`` and a random
    slice ``f`` of the unit features, over a temperature (the stream: of the two views, and twice of rows of one class;
    the memory: of rows of one class; a turned image is of another class); the contrast of the prototypes of the classes
    present in each batch, the means of ``g`` of what is not turned; and cross-entropy of the memory's batch over all
    seen classes, in place of the user's loss, which counts as long as nothing is remembered. The memory's batch is
    drawn by adaptive prototypical feedback: a share ``random`` of it at random, mixed up to 0.6 with each other; the
    rest are pairs of classes, drawn with ``softmax(1 / distance)`` of their prototypes in the batch before, mixed by
    ``Beta(0.4, 0.4)``; each is mixed with probability ``mixup``. The head answers. Other than in the official code
    replay and its feedback begin within the first task (no boundary is needed), images are turned by quarters only (16
    changes there), and the numbers of pairs are rounded so that their sum is exact. Works on any module with a class
    head (inputs that are no images have no second view but their repetition, and are not turned). A step makes two more
    forward passes, over ``2 * rotations`` times as many samples as the batches have, less the stream's own.

    Args:
        memory_size: Slots of the memory. The paper's: 200 (CIFAR-10), 500 (CIFAR-100), 1000 (Tiny-ImageNet).
        batch_size: Samples of the batch from the memory, over all processes; the paper's is 64.
        mixup: Probability that a sample of the memory is mixed, in [0, 1]: 0.6 (CIFAR-10) or 0.2.
        random: Share of random samples, in [0, 1]: 0.75 (CIFAR-10) or 0.9; 1 is plain replay with mixup.
        similarity: Above 0: 0.5 (CIFAR-10) or 1.
        mixed_positive: What a mixed sample is compared with: ``"self"``: its own second view only, as in the official
            code; ``"dominant"``: rows of the class that it has most of; ``"none"``: it is not asked.
        rotations: Quarter turns of square images, 1 (as they are) to 4.
        temperature: Above 0.
        width: Of the projection, at least 1; at most as wide as the features.
        least_area: Smallest share of an image in its second view, in (0, 1].
        flip: Whether second views may be mirrored.
        gray: Share of gray second views, in [0, 1].
        policy: See :class:`ExperienceReplay`; the paper's is ``"reservoir"``.
        train_mask: Of the user's loss, as long as it counts.

    Raises:
        ValueError: As :class:`ExperienceReplay`, and for an argument out of its range.
    """

    state_key: ClassVar[str] = "lightning_cl.OnPro"
    adds_loss: ClassVar[bool] = True
    one_pass: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 5, "width": 6, "rotations": 2, "random": 0.4}

    batch_size: int = 64
    mixup: float = fraction(default=0.2)
    random: float = fraction(default=0.9)
    similarity: float = above(0, default=1.0)
    mixed_positive: MixedPositive = choice(MixedPositive, default="self")
    rotations: int = at_least(1, default=4)
    temperature: float = above(0, default=0.07)
    width: int = at_least(1, default=128)
    least_area: float = above(0, fraction(default=0.3))
    flip: bool = True
    gray: float = fraction(default=0.25)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rotations > 4:
            raise ValueError(f"`rotations` is {self.rotations}, but an image has 4 quarter turns; give 1 to 4.")

    def build(self, pl_module: Any, info: Any) -> OnlinePrototypes:
        """A random projection, and no prototypes yet."""
        return OnlinePrototypes(info.num_classes, pl_module.continual_head.in_features, self)
