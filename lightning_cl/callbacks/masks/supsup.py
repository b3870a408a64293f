"""SupSup: every task finds a network of its own within random weights; which one fits, the entropy tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import choice, fraction
from lightning_cl.callbacks.masks.binary_masks import BinaryMasks
from lightning_cl.callbacks.masks.task_parts import InferringMethod
from lightning_cl.nn.masks import fill_masked, smallest_elements
from lightning_cl.nn.scored_weights import draw_scores, signed_constant
from lightning_cl.nn.task_inference import binary_task, one_shot_task
from lightning_cl.training.batch import call_with
from lightning_cl.training.evaluation_mode import evaluating

Weights = Literal["signed_constant", "given"]
Inference = Literal["one_shot", "binary"]
_INFERENCES = {"one_shot": one_shot_task, "binary": binary_task}


class Supermasks(BinaryMasks):
    """The weights with the largest scores are used; masks of several tasks can be mixed."""

    def __init__(self, module: Any, info: Any, share: float, signed: bool) -> None:
        super().__init__(module, info, "SupSup", affine=False)
        self.share, self.signed = share, signed
        self.shares: Tensor | None = None  # of the masks of the tasks, while they are mixed
        self.reset_scores(module)

    def reset_scores(self, module: Any) -> None:
        """At random, as a linear layer of these inputs is drawn."""
        draw_scores(self.scores.values())

    def chosen(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """All but the ``int((1 - share) * n)`` smallest by magnitude."""
        return ~smallest_elements(scores, 1 - self.share), scores.abs()

    def fixed(self, layer: Any) -> Tensor:
        """The layer's weights, or their signs."""
        return signed_constant(layer.weight) if self.signed else super().fixed(layer)

    def weights(self, name: str, layer: Any) -> Mapping[str, Any]:
        """Of the task, or of all tasks in shares."""
        if self.shares is None:
            return super().weights(name, layer)
        masks = torch.stack([self.mask(name, task).to(self.shares) for task in range(len(self.shares))])
        return {"weight": self.fixed(layer) * torch.tensordot(self.shares, masks, 1)}

    def norm(self, name: str, layer: Any) -> Mapping[str, Any]:
        """Mixed masks have no statistics but those of the batch."""
        if self.shares is None:
            return super().norm(name, layer)
        return {"training": True, "track_running_stats": False, "running_mean": None, "running_var": None}

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Of the task's classes, or of those of all tasks in the mixture."""
        if self.shares is None:
            return super().answer(module, features, logits)
        return fill_masked(logits, self.allowed[: len(self.shares)].any(0))

    def branches_now(self, module: Any) -> Sequence[int]:
        """None while the masks are mixed."""
        return () if self.shares is not None else super().branches_now(module)

    def infer(self, module: Any, inputs: Any, how: Inference = "one_shot") -> int:
        """The task that all of the inputs are of, among the finished ones.

        Args:
            module: The LightningModule.
            inputs: A batch of **one** task, as the module takes it: its samples decide together.
            how: From one pass with all tasks, or from ``ceil(log2(T))`` passes with half as many each time.

        Raises:
            ValueError: If no task has ended.
        """
        if not self.finished.value:
            raise ValueError("no task has ended, so there is no mask to choose; train at least one task.")
        with torch.inference_mode(False), evaluating(module):
            given = inputs.clone() if isinstance(inputs, Tensor) else inputs  # one of an evaluation keeps no graph
            answer, like = partial(self._mixed, module, given), module.continual_head.weight
            return _INFERENCES[how](answer, self.finished.value, like)

    def _mixed(self, module: Any, inputs: Any, shares: Tensor) -> Tensor:
        self.shares = shares
        try:
            with module.recorded():
                logits: Tensor = call_with(module, inputs)
        finally:
            self.shares = None
        known: Tensor = logits[:, self.allowed[: self.finished.value].any(0)]
        return known


@dataclass(eq=False)
class SupSup(InferringMethod):
    """Supermasks in superposition (SupSup; Wortsman et al., NeurIPS 2020, arXiv:2006.14769); task-incremental.

    The weights of the layers are random, of one size each layer, and never change. Each task trains scores, uses the
    weights with the ``share`` largest ``|score|`` of every layer (straight-through gradient) and keeps a bit for each
    weight. Batch norms keep statistics for each task; biases and all else stay as they come. The classes of a task are
    its head, which is trained (the paper masks it, too). Earlier answers stay bit for bit.

    Where the task of samples is not known, :meth:`infer_task` finds it for a batch of one task: of the network with the
    masks of all ``T`` tasks in shares of ``1 / T``, the task is the one whose share lowers the entropy of the answers
    most. ``task_by="entropy"`` finds it for every sample alone, in evaluations without task identity: the task whose
    network answers with the lowest entropy over its classes. An evaluated sample then passes once for every task, in
    one batch; ``validation_step`` must call ``self(inputs)``.

    Works on modules of linear layers and convolutions; needs the end of a task and, with ``task_by="identity"``, the
    task of every evaluation sample (``ContinualDataModule(task_identity=True)``); keeps no sample. A step sorts the
    scores of every layer.

    Args:
        share: Share of a layer's weights that a task uses, in [0, 1]; the default is ours.
        weights: ``"signed_constant"``, the paper's: of the weights as they come the signs, and one size for all of a
            layer; ``"given"``: as they come, for a pre-trained network.

    Raises:
        ValueError: If an argument is out of its range; when attached, without a layer with weights, or with classes in
            several tasks; in ``setup``, on a stream without task identity.
    """

    state_key: ClassVar[str] = "lightning_cl.SupSup"

    share: float = fraction(default=0.5)
    weights: Weights = choice(Weights, default="signed_constant")

    def build(self, pl_module: Any, info: Any) -> Supermasks:
        """Fixed weights, and scores at random."""
        return Supermasks(pl_module, info, self.share, self.weights == "signed_constant")

    @classmethod
    def infer_task(cls, pl_module: Any, inputs: Any, how: Inference = "one_shot") -> int:
        """The task that a batch is of: see :meth:`Supermasks.infer`; ``module.continual.task`` takes it.

        Args:
            pl_module: With this method, after at least one task.
            inputs: Samples of one task, as the module takes them.
            how: ``"one_shot"``: one pass; ``"binary"``: ``ceil(log2(T))`` passes.
        """
        part: Supermasks = cls.part_in(pl_module)
        return part.infer(pl_module, inputs, how)
