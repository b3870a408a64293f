"""Mamba-FSCIL: two selective scans project feature maps to a fixed simplex, one of them for novel classes alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above, at_least, fraction
from lightning_cl.callbacks.few_shot.base_session import BaseSessionMethod
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.distributed import send_from_first_process
from lightning_cl.nn.dual_projector import DualProjector, dot_regression
from lightning_cl.nn.guard import whole
from lightning_cl.nn.heads import ClassStatistics, cosine_logits, simplex_etf
from lightning_cl.nn.novel_branch import learn_session
from lightning_cl.nn.precision import wide
from lightning_cl.nn.token_maps import token_maps
from lightning_cl.training import MethodModule, Step, TaskData
from lightning_cl.training.last_stage import last_stage
from lightning_cl.training.loss_terms import zero_through


class ScanClassifier(MethodModule):
    """The projector, the fixed rows of all classes, and one mean map and feature of each class."""

    makes_logits = True
    loss_factor = 0.0  # dot regression stands for the user's loss
    growing = ("base",)
    base: Tensor
    rows: Tensor

    def __init__(self, module: Any, num_classes: int, stage: str, method: MambaFSCIL) -> None:
        super().__init__()
        channels, allocated = module.continual_head.in_features, max(method.classes or 0, num_classes)
        width = max(channels, allocated - 1)
        self.method, self.stage, self.finished = method, stage, Counter()
        self.projector = DualProjector(channels, width, method.side, method.states)
        rows = simplex_etf(allocated, width, torch.Generator().manual_seed(0))
        self.register_buffer("rows", rows.to(torch.get_default_dtype()))
        self.register_buffer("base", torch.zeros(num_classes, dtype=torch.bool))
        self.means = ClassStatistics(num_classes, channels * (method.side**2 + 1))
        self.given: Tensor | None = None
        module.get_submodule(stage).register_forward_hook(self._see)

    def _see(self, layer: nn.Module, args: Any, output: Any) -> None:
        """Forward hook of the stage: what it gives until the head answers."""
        self.given = output[0] if isinstance(output, tuple) else output

    def trains_now(self) -> bool:
        """In the base session."""
        return not self.finished.value

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """``(B, C)`` cosines of projected features and rows, times the scale; the head takes no part."""
        given, self.given = self.given, None
        if module.continual.raw:
            return logits
        projected = F.normalize(self._projected(self._maps(given, features), features).features, dim=1)
        step = module.continual.step
        if step is not None and self.training and torch.is_grad_enabled():
            step.memo[self] = projected
        answers = cosine_logits(projected, self.rows[: len(self.base)], self.method.scale)
        return answers.to(logits.dtype) + zero_through(module.continual_head.parameters(), logits.device)

    def _projected(self, maps: Tensor, features: Tensor) -> Any:
        kind = self.rows.dtype
        return self.projector(maps.to(kind), features.to(kind), novel=bool(self.finished.value))

    def _maps(self, given: Tensor | None, features: Tensor) -> Tensor:
        """``(B, D, S, S)`` maps of the samples whose ``(B, D)`` features reached the head."""
        if given is None:
            raise ValueError(
                f"the head was called, but `{self.stage}`, whose maps MambaFSCIL projects, was not; call the module's "
                "`forward`, or name another layer with `stage=`."
            )
        maps = token_maps(given, "MambaFSCIL", "stage=")
        if maps.shape[1] != features.shape[1]:
            raise ValueError(
                f"`{self.stage}` gives maps of {maps.shape[1]} channels, but the head is given {features.shape[1]}; "
                "name a layer whose maps have as many with `stage=`."
            )
        maps = F.adaptive_avg_pool2d(wide(maps), self.method.side)
        return maps.repeat_interleave(len(features) // len(maps), dim=0)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Dot regression in the base session."""
        projected = step.memo.pop(self)
        return {"dot_regression": self.method.strength * dot_regression(projected, self.rows[step.targets])}

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """The head, which does not answer."""
        return whole(p for p in module.continual_head.parameters() if p.requires_grad)

    # ------------------------------------------------------------------ the end of a session

    def end_task(self, module: Any, data: TaskData) -> None:
        """Take the session's maps; after the base session, teach them to the novel branch beside the old means."""

        def extract(inputs: Any) -> Tensor:
            call = Step(module, None).look(inputs)
            given = call.outputs[self.stage]
            maps = self._maps(given[0] if isinstance(given, tuple) else given, call.features)
            return torch.cat([maps.flatten(1), call.features.to(maps.dtype)], dim=1)

        found, labels, _ = data.all_features(extract)
        if self.finished.value:
            old = self.means.counts > 0
            old[torch.tensor(data.task.classes, device=old.device)] = False
            kept = old.nonzero().flatten().repeat(self.method.copies)
            maps = torch.cat([found, self.means.means[kept].to(found.dtype)]).to(self.rows.dtype)
            known = maps, torch.cat([labels, kept])
            learn_session(self.projector, known, self.rows, self.base, self.method, data.task.index)
        else:
            send_from_first_process(self.projector.novel.buffers())  # which begin with numbers of each process's own
            self.base[torch.tensor(data.task.classes, device=self.base.device)] = True
        self.means.update(found, labels)
        self.finished.set(data.task.index + 1)


@dataclass(eq=False)
class MambaFSCIL(BaseSessionMethod):
    """Mamba-FSCIL (Li et al., arXiv:2407.06136): a dual selective state-space projector on a fixed simplex.

    The answer is ``scale * cos(h, m_c)`` with the rows ``m`` of a simplex for all classes of the stream (at equal
    angles, never trained) and ``h = base(x) + identity(x) + novel(x)``: two branches read the last feature map, each by
    two linear layers at every place, a selective scan in four directions and the mean over the places. In the base
    session (the first task) the network, ``base`` and ``identity`` learn with the user's optimiser by dot regression,
    ``strength / 2 (cos - 1)^2``, in place of the user's loss. Then all of that stays. At the end of every later
    session ``novel``, whose gate is closed at first so that nothing changes, learns from the session's maps and one
    mean map of every earlier class: ``steps`` steps of AdamW by dot regression of classes that weigh alike, with maps
    mixed half and half, a gate that stays closed on base classes, and coefficients ``dt``, ``B``, ``C`` that differ
    between base and novel classes (``suppression`` and ``separation`` of ``nn.dual_projector``).

    Later sessions make no step of the user's, so one epoch each is enough: ``epochs_per_task=[50, 1, 1, ...]``. Needs a
    base session and task ends; works on networks with stages that give maps or tokens of as many channels as the head
    reads; keeps one mean of each class, ``side^2 + 1`` feature vectors, and no image. The classes of the whole stream
    must be known, or over-allocated with ``classes``. Weights of the losses are the paper's for CIFAR-100; states and
    layers of the scan are smaller (the paper: 256 states), its maps are pooled to ``side^2`` places, sessions are
    learned by AdamW (the paper: SGD at a rate of 0.25, which suits features of one length alone), and mixup and CutMix
    of the base session are the user's to add.

    Args:
        strength: Weight of dot regression, above 0.
        states: Of each channel of a scan, at least 1.
        side: Height and width to which maps are pooled, at least 1.
        steps: In each later session, at least 0; 0: novel classes answer with what the base session learned.
        lr: Of these steps at first, above 0; it falls along a cosine.
        batch_size: Of these steps.
        copies: How often the mean of an earlier class is among the samples of a session, at least 1.
        mixup: Share of the steps with mixed maps, in [0, 1].
        suppress_base: Weight of the gate on base classes, at least 0.
        excite_novel: Weight of the gate on novel classes, at least 0.
        separate: Weight of the separation, at least 0.
        scale: Of the cosines in the answer, above 0; the highest is the same.
        classes: Rows of the simplex where more classes may come than the stream has.
        stage: Dotted path of the layer whose maps are read; the last stage or block when ``None``.
        train_mask: Which classes compete in the training loss; dot regression has no competition.

    Raises:
        ValueError: If a number is out of its range; in ``setup``, on a stream without a base session; when attached,
            without stages; in the first step, if the stage gives no maps of the head's channels.
    """

    state_key: ClassVar[str] = "lightning_cl.MambaFSCIL"
    adds_loss: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True
    trains_head: ClassVar[bool] = False
    works_on: ClassVar[str] = "networks with stages of maps or tokens"
    small: ClassVar[dict[str, Any]] = {"states": 2, "side": 2, "steps": 3, "batch_size": 6, "classes": 10}

    strength: float = above(0, default=10.0)
    states: int = at_least(1, default=16)
    side: int = at_least(1, default=4)
    steps: int = at_least(0, default=200)
    lr: float = above(0, default=0.005)
    batch_size: int = at_least(1, default=64)
    copies: int = at_least(1, default=1)
    mixup: float = fraction(default=0.75)
    suppress_base: float = at_least(0, default=100.0)
    excite_novel: float = at_least(0, default=1e-5)
    separate: float = at_least(0, default=0.001)
    scale: float = above(0, default=16.0)
    classes: int | None = None
    stage: str | None = None

    def build(self, pl_module: Any, info: Any) -> ScanClassifier:
        """The projector and the fixed rows; watch the stage."""
        stage = last_stage(pl_module, self.stage)
        pl_module.watch_layer(stage)
        return ScanClassifier(pl_module, info.num_classes, stage, self)
