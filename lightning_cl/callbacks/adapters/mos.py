"""MOS: an adapter for each task, kept near its predecessors; each sample looks for the adapter that agrees with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.adapters.aligned_gaussians import AlignedGaussians
from lightning_cl.callbacks.adapters.task_adapters import PerTaskMethod, TaskAdapters, folded_adapters
from lightning_cl.callbacks.arguments import above, at_least, choice, fraction
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.adapters import Adapters, unfolded
from lightning_cl.nn.adapters.paths import beside
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.heads import PrototypeHead
from lightning_cl.nn.heads.statistics import Covariance
from lightning_cl.nn.heads.subspaces import refined_logits
from lightning_cl.nn.losses import self_contrast
from lightning_cl.nn.parameter_versions import Remembered, written
from lightning_cl.nn.weights import ema
from lightning_cl.training import Step, TaskData
from lightning_cl.training.global_batch import global_rows, with_own_gradient


class MergedAdapters(AlignedGaussians, TaskAdapters):
    """Adapters, the head that all of them share, Gaussians of all classes, and their means with the first adapter."""

    def __init__(self, adapters: Adapters, method: MOS, num_classes: int, head: Any) -> None:
        TaskAdapters.__init__(self, adapters)
        self.keep_gaussians(method, head, num_classes)
        self.first_means = PrototypeHead(num_classes, head.in_features, "cosine", normalize=False)
        self.is_aligned = Counter()
        self._known = Remembered[Tensor]()  # ids of the classes that are counted

    def start_task(self, module: Any, task: Any) -> None:
        """The new adapter starts as the last one ended."""
        super().start_task(module, task)
        if task.index:
            self.adapters.copy_slot(task.index - 1, task.index)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Features are to be unlike each other and the stored class means."""
        if not self.method.strength:
            return {}
        rows, factor = global_rows(step.module, step.features)
        counts = self.statistics.counts
        known = self._known.get(written(counts), lambda: (counts > 0).nonzero().flatten())
        term = self_contrast(torch.cat([self.statistics.means[known].to(rows), rows]))
        return {"contrast": self.method.strength * with_own_gradient(term, factor)}

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Slow the head down."""
        self.slow_down((p for p in module.continual_head.parameters() if p.requires_grad), self.method.head_lr)

    @torch.no_grad()
    def after_step(self, module: Any, optimizer: Any) -> None:
        """Make the head's step smaller, and pull the adapter to the mean of those before it."""
        super().after_step(module, optimizer)
        slot = self.slot.value
        if slot and self.method.merge:
            parts = {name: p for name, p in self.adapters.named_parameters() if p.requires_grad}
            means = {name: p[:slot].mean(dim=0) for name, p in parts.items()}
            ema({name: p.detach()[slot] for name, p in parts.items()}, means, 1 - self.method.merge)

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """The head's logits while training; when evaluated, log probabilities from two ways of answering."""
        paths, known = len(self.adapters.paths), self.statistics.counts > 0
        if self.training or paths != self.finished.value:  # or features of some adapters are read
            return logits
        first: Tensor = self.first_means(unfolded(self.adapters, features)[:, : features.shape[1]])  # (B, C)
        each = self.aligned(module.continual_head, features) if self.is_aligned.value else logits
        each = each.unflatten(0, (paths, -1)).transpose(0, 1)[..., : len(known)]
        start = self.task_of[first[:, None].argmax(dim=2)[:, 0]]  # (B, 1, C): a choice of (B, C) is the module's
        refined = refined_logits(each, start, self.task_of, known).masked_fill(~known, -torch.inf)
        shares = refined.softmax(dim=1) + (paths * first).softmax(dim=1)
        return (shares / 2).log().to(logits.dtype)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Count the task's classes with its adapter and with the first; then align the head with all classes."""
        super().end_task(module, data)
        index = data.task.index

        with self.adapters.selected(index, 0):
            for features, labels, _ in data.features(lambda inputs: beside(self.adapters, module.head_input(inputs))):
                last, first = features.chunk(2, dim=1)
                self.statistics.update(last, labels)
                self.first_means.update(first, labels)
        self.task_of[list(data.task.classes)] = index
        if index and self.method.align_epochs:
            classes = self.known_classes()
            old = [c for c, task in zip(classes, self.task_of[classes].tolist(), strict=True) if task < index]
            found = self.statistics.gaussians(classes)
            self.align(module.continual_head, found, index, kept=old if self.is_aligned.value else ())
            self.is_aligned.set(1)


@dataclass(eq=False)
class MOS(PerTaskMethod):
    """Model surgery (MOS; Sun et al., AAAI 2025, arXiv:2412.09441).

    Each task trains an adapter (that of ``APER``, from where the last one ended) and the head, the latter with
    ``head_lr`` times the learning rate, by the user's loss on its classes and ``strength`` times ``CE(Z Z^T / 0.8)``:
    each row of ``Z``, the stored class means and the features of the whole batch, is to be most like itself. After each
    step the adapter becomes ``(1 - merge) A + merge mean(A_0 .. A_{t-1})``, once; the released code does it 13 times,
    in effect ``merge=0.75``, and also when it evaluates, where we change nothing. At a task's end its classes get
    Gaussians, and a copy of the head, which answers from then on, is trained on
    draws from those of all classes. A sample is taken for the class with the
    nearest mean in the first adapter's space, goes to that class's adapter, and on to the one of the class that the
    head sees there, at most 4 times; the answer is the logarithm of half ``softmax(z) + softmax(T cos)``. Defaults are
    the paper's for CIFAR-100. Needs the end of a task; keeps an adapter a task, ``2 D + D^2`` numbers a class, and no
    sample; an evaluated image passes once for every finished task, in one batch. Works on timm ViTs.

    Args:
        scale: Of what adapters add, at least 0.
        dropout: Behind the ReLU, in [0, 1].
        merge: ``m``, in [0, 1]; 0 leaves adapters apart.
        strength: Weight of the term, at least 0.
        head_lr: Share of the adapters' learning rate, in [0, 1].
        align_epochs: Of the alignment, at least 0.
        align_lr: Its learning rate at first, above 0.
        samples: Drawn from each class in an epoch, at least 1; five times the batch size is the paper's.
        covariance: ``"class"``; or ``"diagonal"``, the paper's for ImageNet-A, or ``"shared"``.

    Raises:
        ValueError: If a number is out of its range or a choice unknown; when attached, without a ViT whose blocks can
            be adapted.
    """

    state_key: ClassVar[str] = "lightning_cl.MOS"
    boundaries: ClassVar[Boundaries] = "taken"
    adds_loss: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"rank": 4, "dropout": 0.0, "samples": 8, "align_epochs": 2}

    rank: int = 16
    scale: float = at_least(0, default=0.1)
    dropout: float = fraction(default=0.1)
    merge: float = fraction(default=0.1)
    strength: float = at_least(0, default=0.1)
    head_lr: float = fraction(default=0.1)
    align_epochs: int = at_least(0, default=30)
    align_lr: float = above(0, default=0.005)
    samples: int = at_least(1, default=240)
    covariance: Covariance = choice(("class", "shared", "diagonal"), default="class")

    def build(self, pl_module: Any, info: Any) -> MergedAdapters:
        """Freeze the ViT and put an adapter for each task beside the MLP of every block."""
        adapters = folded_adapters(pl_module, self, info.num_tasks)
        return MergedAdapters(adapters, self, info.num_classes, pl_module.continual_head)
