"""CoTTA: a model adapts to changing domains by the answers of its own average, and forgets nothing for long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.adaptation.unlabelled import Adaptation, AdaptationMethod
from lightning_cl.callbacks.arguments import at_least, fraction
from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.nn.guard import whole
from lightning_cl.nn.losses import soft_cross_entropy
from lightning_cl.nn.precision import wide
from lightning_cl.nn.views import random_view
from lightning_cl.nn.weights import Snapshot, ema, key_of, overwrite, trained
from lightning_cl.training import Step
from lightning_cl.training.step_seed import step_seed


class MeanTeacher(Adaptation):
    """The module's own weights are the teacher, which answers; a copy is the student, which learns."""

    def __init__(self, module: Any, method: CoTTA) -> None:
        super().__init__()
        self.method = method
        weights = self._moved(module)
        self.names = tuple(weights)
        self.student = nn.ParameterDict({key_of(name): nn.Parameter(w.detach().clone()) for name, w in weights.items()})
        self.source = Snapshot(weights)
        self.growing = tuple(f"student.{key_of(name)}" for name in weights)  # the head's rows among them

    @staticmethod
    def _moved(module: Any) -> dict[str, nn.Parameter]:
        """As the official code: a ViT's class token and positions are neither a weight nor a bias of a layer."""
        found = trained(module).items()
        own = {name: p for name, p in found if not name.startswith("continual.")}
        return {name: p for name, p in own.items() if name.rpartition(".")[2] in ("weight", "bias")}

    def students(self) -> dict[str, nn.Parameter]:
        """The student's weights under the names of the module's."""
        return {name: self.student[key_of(name)] for name in self.names}

    def adapted(self, module: Any) -> list[nn.Parameter]:
        """The student's."""
        return list(self.student.values())

    def start_task(self, module: Any, task: Any) -> None:
        """Before the first domain without labels, teacher and student are the model as it was trained, the source."""
        super().start_task(module, task)
        if self.adapts and not self.source.taken:
            weights = self._moved(module)
            self.source.take(weights)
            overwrite(self.students(), ((name, weights[name]) for name in self.names))

    def adaptation_loss(self, step: Step) -> Tensor:
        """Cross-entropy of the student with the teacher's answers, averaged over views if the source is not sure."""
        _, call = step.learn(step.inputs, self.students())
        mask = step.module.continual.mask
        student = wide(mask(call.raw_logits))
        teacher = step.look(batch_statistics=True).raw_logits
        source = step.look(weights=dict(self.source.items()), batch_statistics=True).raw_logits
        sure = wide(mask(source)).softmax(dim=1).amax(dim=1)
        rows = torch.ones_like(sure, dtype=torch.bool)
        if self.method.views and bool(step.over_processes(step.mean_over(rows, sure)) < self.method.threshold):
            views = [step.look(view, batch_statistics=True).raw_logits for view in self._views(step)]
            teacher = torch.stack(views).mean(dim=0)  # of logits, not of probabilities
        teacher = wide(mask(teacher))
        self.predicted = teacher.argmax(dim=1)
        losses = soft_cross_entropy(student, teacher.detach())
        if self.method.symmetric:
            losses = (losses + soft_cross_entropy(teacher.detach(), student)) / 2
        return losses.mean()

    def _views(self, step: Step) -> Iterator[Tensor]:
        images, method = step.inputs, self.method
        if not isinstance(images, Tensor) or images.ndim != 4:
            raise ValueError(
                f"CoTTA averages answers over views of images, but the inputs are a {type(images).__name__} that is no "
                "batch of images (B, C, H, W); set `views=0`."
            )
        mean, std = (images.new_tensor(v).view(1, -1, 1, 1) for v in (method.mean or (0.0,), method.std or (1.0,)))
        for view in range(method.views):
            generator = torch.Generator().manual_seed(step_seed(step.module, 0xC0 + view))
            yield (random_view(images * std + mean, generator, method.flip) - mean) / std

    @torch.no_grad()
    def after_step(self, module: Any, optimizer: Any) -> None:
        """``teacher <- decay * teacher + (1 - decay) * student``; then some weights of the student go back."""
        first = next(iter(self.student.values()), None)
        if not self.adapts or not any(p is first for group in optimizer.param_groups for p in group["params"]):
            return
        students = self.students()
        ema(self._moved(module), students, self.method.decay)
        restore_(students, dict(self.source.items()), self.method.restore, step_seed(module, 0x7A))

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """While there are no labels, what is no layer's weight or bias."""
        moved = {id(p) for p in (*self._moved(module).values(), *self.student.values())}
        yield from whole(p for p in trained(module).values() if self.adapts and id(p) not in moved)


@torch.no_grad()
def restore_(weights: Mapping[str, Tensor], source: Mapping[str, Tensor], share: float, seed: int) -> None:
    """Set a random share of all elements back to the source, in place; the same for the same seed."""
    for place, (name, weight) in enumerate(weights.items() if share else ()):
        generator = torch.Generator(weight.device).manual_seed(mix_seed(seed, place))
        back = torch.rand(weight.shape, generator=generator, device=weight.device) < share
        weight.copy_(torch.where(back, source[name], weight))


@dataclass(eq=False)
class CoTTA(AdaptationMethod):
    """Continual test-time adaptation (CoTTA; Wang et al., CVPR 2022, arXiv:2203.13591).

    On an ``UnlabelledDomains`` stream. While there are labels it is plain training, and what comes out is the source.
    Then every batch is learned once without labels: the student's ``z`` follows the teacher's ``z'`` by ``-sum
    softmax(z') log softmax(z)``; ``z'`` is the mean over ``views`` random views where the source's mean confidence on
    the batch is below ``threshold``. Behind the optimiser's step the teacher moves, ``w' <- decay w' + (1 - decay) w``,
    and each weight of the student goes back to the source with probability ``restore``. The module's own weights are
    the teacher: it is what answers, in every evaluation and outside. As in the official code the layers' weights and
    biases adapt, a ViT's class token and positions do not; the step is that of your optimiser (the paper's for
    CIFAR-C: Adam, 1e-3). Batch norm uses the batch in all three; for evaluation it has the running statistics that the
    student's passes move. Needs no boundaries between domains. Keeps two copies of what is trained; a step makes three
    passes and ``views`` more where it is not sure, which it waits for the device to tell.

    Args:
        threshold: Mean of the source's largest probability, in [0, 1]. The paper's: 0.92 for CIFAR10-C, 0.72 for
            CIFAR100-C, 0.1 for ImageNet-C.
        views: Random views of the whole batch, each with one draw of :func:`~lightning_cl.nn.views.random_view`; 0:
            never.
        decay: Of the teacher, in [0, 1].
        restore: In [0, 1]; the paper's are 0.01, and 0.001 for ImageNet-C.
        symmetric: Half of the loss and half of the reversed one, as in the official code for ImageNet-C.
        flip: Whether views may be mirrored; not for digits and letters.
        mean: By which the stream normalises its images, for the views are made in [0, 1]; ``None``: it does not.
        std: As ``mean``.

    Raises:
        ValueError: If a number is out of its range, or ``mean`` comes without ``std``; in ``setup``, on a stream whose
            tasks all have labels; in training, if views are to be made of inputs that are no images.
    """

    state_key: ClassVar[str] = "lightning_cl.CoTTA"
    small: ClassVar[dict[str, Any]] = {"threshold": 0.4, "views": 2, "decay": 0.9, "mean": (0.3,), "std": (0.38,)}

    threshold: float = fraction(default=0.92)
    views: int = at_least(0, default=32)
    decay: float = fraction(default=0.999)
    restore: float = fraction(default=0.01)
    symmetric: bool = False
    flip: bool = True
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"`mean` is {self.mean} and `std` is {self.std}; give both, or neither for none.")

    def build(self, pl_module: Any, info: Any) -> MeanTeacher:
        """The student and the source, copies of what is trained when the method is attached."""
        return MeanTeacher(pl_module, self)
