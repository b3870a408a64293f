"""Sub-net tuning: a small part of the network learns the few samples of a session for a few steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least, pattern
from lightning_cl.callbacks.few_shot.base_session import BaseSessionMethod
from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.gradients import flat_or_zero, give_gradients
from lightning_cl.nn.heads import ClassStatistics, cosine_logits
from lightning_cl.training import MethodModule, TaskData
from lightning_cl.training.evaluation_mode import in_eval_mode
from lightning_cl.training.last_stage import last_parameters


class TunedSubnet(MethodModule):
    """Means of the classes, which samples of a session are told apart by."""

    def __init__(self, module: Any, num_classes: int, method: SubnetTuning) -> None:
        super().__init__()
        self.method, self.names = method, last_parameters(module, method.part, "part")
        self.means = ClassStatistics(num_classes, module.continual_head.in_features)

    def start_task(self, module: Any, task: Any) -> None:
        """Tune the sub-net on the session's samples, before it is trained or counted by others."""
        if task.index == 0 or not self.method.steps or not self.names:
            return
        data, known = TaskData(module, task), ClassStatistics(*self.means.sums.shape).to(self.means.sums.device)
        for features, labels, _ in data.features():
            known.update(features, labels)
        rows = torch.where((known.counts > 0)[:, None], known.means, self.means.means)
        present = (known.counts > 0) | (self.means.counts > 0)
        self._tune(module, data, rows, present)

    def _tune(self, module: Any, data: TaskData, rows: Tensor, present: Tensor) -> None:
        parameters = dict(module.named_parameters())
        weights = [parameters[name] for name in self.names]
        optimizer, done = torch.optim.SGD(weights, lr=self.method.lr, momentum=0.9), 0
        while done < self.method.steps:
            for inputs, targets, _ in data.batches("train", epoch=done):
                given = inputs, targets, rows.to(weights[0]), present
                give_gradients(weights, self._gradient(module, weights, *given))
                optimizer.step()
                done += 1
                if done == self.method.steps:
                    break
        optimizer.zero_grad()

    def _gradient(
        self, module: Any, weights: list[Tensor], inputs: Any, targets: Tensor, rows: Tensor, present: Tensor
    ) -> Tensor:
        """Of the mean over the batch of all processes; one may have none of its samples."""
        total = torch.zeros(sum(w.numel() for w in weights), device=rows.device, dtype=rows.dtype)
        if len(targets):
            with torch.enable_grad(), in_eval_mode(module):
                features = module.head_input(inputs).to(rows.dtype)
                logits = cosine_logits(features, rows, self.method.scale).masked_fill(~present, -torch.inf)
                loss = F.cross_entropy(logits, targets, reduction="sum")
            found = torch.autograd.grad(loss, weights, allow_unused=True)
            total += flat_or_zero(found, weights)
        return all_sum(total) / all_sum(torch.tensor(float(len(targets)), device=rows.device)).to(total)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Take the means of the session's classes."""
        for features, labels, _ in data.features():
            self.means.update(features, labels)


@dataclass(eq=False)
class SubnetTuning(BaseSessionMethod):
    """Trick of few-shot learning: incremental tuning of a sub-net, style (after arXiv:2403.14392).

    At the start of every later session the sub-net makes ``steps`` steps of SGD with momentum on the session's samples,
    in eval mode: cross-entropy of ``scale * cos(f, m_c)`` with the means ``m`` of all classes seen, those of the
    session's classes as they are before. What comes after, as the means that :class:`TEEN` takes at the session's end,
    is of the tuned network; means of earlier classes stay as they were. The paper's code is not public: which part, the
    loss and the numbers are our reading. Works on any module with a class head; needs a base session and the start of a
    task; keeps one mean of each class.

    Args:
        steps: In each later session, at least 0; with 0 nothing is tuned.
        lr: Above 0.
        part: Regular expression that is searched in the names of parameters; when ``None``, the last stage or block of
            the network, or all before the head where it has none.
        scale: Of the cosines, above 0.

    Raises:
        ValueError: If an argument is out of its range; in ``setup``, on a stream without a base session; when attached,
            if ``part`` names no trained parameter.
    """

    state_key: ClassVar[str] = "lightning_cl.SubnetTuning"
    small: ClassVar[dict[str, Any]] = {"steps": 2}

    steps: int = at_least(0, default=20)
    lr: float = above(0, default=0.001)
    part: str | None = pattern(default=None)
    scale: float = above(0, default=16.0)

    def build(self, pl_module: Any, info: Any) -> TunedSubnet:
        """Means of the classes; nothing is trained yet."""
        return TunedSubnet(pl_module, info.num_classes, self)
