"""Generative kernels: each task has a kernel classifier on features drawn from a Gaussian of each of its classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above, at_least, choice, fraction
from lightning_cl.callbacks.task_incremental import ToldMethod, check_disjoint, classes_of_tasks
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.guard import all_rows_but
from lightning_cl.nn.heads import ClassStatistics
from lightning_cl.nn.heads.kernel_ridge import Kernel, kernel_ridge
from lightning_cl.nn.losses import supervised_contrastive
from lightning_cl.nn.weights import trained
from lightning_cl.training import Step, TaskData
from lightning_cl.training.global_batch import global_batch, with_own_gradient
from lightning_cl.training.slowed_steps import SlowedSteps

LEAST_RIDGE = 0.01


class KernelClassifiers(SlowedSteps):
    """Means and deviations of the unit features of all classes; ridge, scale and shift of each task's classifier."""

    makes_logits = True
    takes_task = True
    growing = ("means", "squares", "ridges", "scales", "shifts")
    means: Tensor
    squares: Tensor
    noise: Tensor

    def __init__(self, module: Any, info: Any, method: GenerativeKernel) -> None:
        super().__init__()
        check_disjoint(info, "GenerativeKernel")
        head = module.continual_head
        classes, width, tasks = info.num_classes, head.in_features, info.num_tasks
        self.method, self.choice, self.finished = method, module.continual.choice, Counter()
        self.register_buffer("means", torch.zeros(classes, width))
        self.register_buffer("squares", torch.zeros(classes, width))  # means of squares
        self.ridges = nn.Parameter(head.weight.new_full((tasks,), method.ridge))
        self.scales = nn.Parameter(head.weight.new_ones(tasks))  # times `scale`, which weight decay leaves alone
        self.shifts = nn.Parameter(head.weight.new_zeros(tasks))
        self.classes = [row.nonzero().flatten().tolist() for row in classes_of_tasks(info, classes)]  # of each task
        noise = [torch.randn(method.drawn, width, generator=torch.Generator().manual_seed(c)) for c in range(classes)]
        self.register_buffer("noise", torch.stack(noise), persistent=False)

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Of the classifier of the task; classes of others are not among its answers."""
        task = self.choice.required("GenerativeKernel")
        classes = torch.tensor(self.classes[task], device=features.device)
        targets = torch.eye(len(classes), device=features.device).repeat_interleave(self.method.drawn, 0)
        ridge, unit = self.ridges[task].abs() + LEAST_RIDGE, F.normalize(features, dim=1)
        known = kernel_ridge(unit, self.drawn(classes), targets, ridge, self.method.kernel)
        answers = self.method.scale * self.scales[task] * known + self.shifts[task]
        own = answers.to(logits.dtype) + 0.0 * logits.sum(1, keepdim=True)  # DDP waits for the head's gradient
        return own.new_full((own.shape[0], len(self.means)), -torch.inf).index_copy(1, classes, own)

    def drawn(self, classes: Tensor) -> Tensor:
        """``(n * drawn, D)`` features of some classes, the same ones as long as their statistics are."""
        deviations = (self.squares[classes] - self.means[classes].square()).clamp_min(0).sqrt()
        return (self.means[classes][:, None] + deviations[:, None] * self.noise[classes]).flatten(0, 1)

    # ------------------------------------------------------------------ a training step

    def losses(self, step: Step) -> Mapping[str, Tensor]:
        """Follow the features of the classes, and pull those of a class together."""
        unit, method = F.normalize(step.features, dim=1), self.method
        rows, labels, factor = global_batch(step.module, unit, step.targets)
        self._follow(rows.detach(), labels.long())
        if not method.strength:
            return {}
        return {"contrast": method.strength * with_own_gradient(supervised_contrastive(rows, labels), factor)}

    @torch.no_grad()
    def _follow(self, rows: Tensor, labels: Tensor) -> None:
        members = F.one_hot(labels, len(self.means)).to(self.means)
        counts, rows = members.sum(0)[:, None], rows.to(self.means)
        for kept, values in ((self.means, rows), (self.squares, rows.square())):
            found = members.T @ values / counts.clamp_min(1)
            kept.copy_(torch.where(counts > 0, torch.lerp(found, kept, self.method.inertia), kept))

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Make the step smaller, the more tasks have ended."""
        self.slow_down(trained(module, optimizer).values(), self.method.decay**self.finished.value)

    # ------------------------------------------------------------------ tasks

    def start_task(self, module: Any, task: Any) -> None:
        """Statistics of the task's classes, by a pass over its samples."""
        self._fit(TaskData(module, task))

    def end_task(self, module: Any, data: TaskData) -> None:
        """The same, with the features as they are now."""
        self._fit(data)
        self.finished.set(data.task.index + 1)

    @torch.no_grad()
    def _fit(self, data: TaskData) -> None:
        found = ClassStatistics(len(self.means), self.means.shape[1], "diagonal").to(self.means.device)
        for features, labels, _ in data.features():
            found.update(F.normalize(features.double(), dim=1), labels)
        counts = found.counts[:, None]
        for kept, sums in ((self.means, found.sums), (self.squares, found.products)):
            kept.copy_(torch.where(counts > 0, (sums / counts.clamp_min(1)).to(kept), kept))

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Ridge, scale and shift of other tasks."""
        return (all_rows_but(p, self.finished.value) for p in (self.ridges, self.scales, self.shifts))


@dataclass(eq=False)
class GenerativeKernel(ToldMethod):
    """Generative kernels, style (after generative kernel continual learning, arXiv:2112.13410); task-incremental.

    Each task has a kernel ridge classifier in place of the head, ``g_t K(x, S_t) (K(S_t, S_t) + (|l_t| + 0.01) I)^-1
    Y_t + b_t``, on features ``S_t`` of no stored sample: ``drawn`` ones a class from a Gaussian of its own. Features
    have unit length; ``l_t``, ``g_t`` and ``b_t`` are learned. Gaussians are fitted by a pass over a task's samples at
    its start and at its end, and follow the features of the batches in between. All of the network is trained, by the
    user's loss on these logits and ``strength`` times the supervised contrastive loss of the features; steps are
    ``decay`` times smaller with every task, for nothing else keeps the features that earlier Gaussians were fitted to.

    In this style and no reproduction: the paper generates with a variational autoencoder, of which no code is public,
    and its kernels are of learned random Fourier features; kernels here are the other ones of the code of kernel
    continual learning (arXiv:2107.05757). The official code evaluates earlier tasks with the current one's ``l``, ``g``
    and ``b``; here each has its own. Works on any model with a class head; needs the start and the end of a task and
    the task of every evaluation sample (``ContinualDataModule(task_identity=True)``); keeps two numbers for each class
    and channel, and no sample. A step solves a system of ``drawn`` times the task's classes.

    Args:
        strength: Of the contrastive loss, at least 0.
        drawn: Features a class, at least 1.
        kernel: ``"rbf"`` (``exp(-0.25 |a - b|_1)``), ``"linear"`` or ``"polynomial"`` (``(a b + 1)^3``).
        ridge: ``l`` at first, at least 0.
        scale: ``g`` at first, above 0.
        decay: In [0, 1]; 1 makes all steps of one size, 0 stops after the first task.
        inertia: How much of a class's statistics stays in a step in which it comes, in [0, 1].

    Raises:
        ValueError: If an argument is out of its range; when attached, with classes in several tasks; in ``setup``, on a
            stream without task identity.
    """

    state_key: ClassVar[str] = "lightning_cl.GenerativeKernel"
    adds_loss: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True
    trains_head: ClassVar[bool] = False
    small: ClassVar[dict[str, Any]] = {"drawn": 4}

    strength: float = at_least(0, default=0.1)
    drawn: int = at_least(1, default=20)
    kernel: Kernel = choice(Kernel, default="rbf")
    ridge: float = at_least(0, default=1.0)
    scale: float = above(0, default=10.0)
    decay: float = fraction(default=0.5)
    inertia: float = fraction(default=0.9)

    def build(self, pl_module: Any, info: Any) -> KernelClassifiers:
        """A classifier for each task that knows nothing yet."""
        return KernelClassifiers(pl_module, info, self)
