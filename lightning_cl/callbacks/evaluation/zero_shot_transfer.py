"""Measure on classes that are never trained what a vision-language model still knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_cl.callbacks.base import ContinualCallback, require_stream
from lightning_cl.callbacks.language.text_features import TextFeatures
from lightning_cl.datamodules import ContinualDataModule, Task
from lightning_cl.datamodules.scenarios.joint import Joint
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.class_texts import class_names, clip_tokens, fill_templates, text_logits
from lightning_cl.nn.clip_towers import check_text_tower, encode_texts, text_tower
from lightning_cl.training.batch import unpack_for
from lightning_cl.training.evaluation_mode import evaluating
from lightning_cl.training.find_backbone import find_clip
from lightning_cl.training.transfer import transferred


class ZeroShotTransfer(ContinualCallback):
    """Accuracy on classes that the stream never trains, before the first task and after every task.

    The test samples of another source are answered by the cosine of their image features, as they reach the module's
    head, and the text features of their class names, under the prompts that a method has learned. The report has the
    accuracies before and after, and what was lost, among its facts. It leaves no trace in training: nothing is drawn,
    and every process makes the same passes.

    Works on modules with one open_clip model whose image features reach the class head: put it beside ``CPECLIP``,
    ``PromptSRC``, ``MSGCoOp``, or a method that fine-tunes CLIP, such as ``ZSCL``. It costs a pass over the source's
    test samples and its class names at each task's end.

    Args:
        source: Whose test samples are answered; its images are as large as the stream's.
        template: What is read of a class; the name takes the place of ``{}``.
        batch_size: Samples of a pass, at least 1.

    Raises:
        ValueError: If the template has no place for a name; in ``setup``, if a class of the source is one of the
            stream's, or the module has no such model.
    """

    state_key = "lightning_cl.ZeroShotTransfer"

    def __init__(self, source: Source, template: str = "{}.", batch_size: int = 128) -> None:
        fill_templates(["name"], [template])
        self.source, self.template, self.batch_size = source, template, batch_size
        #: Accuracy in [0, 1] before the first task, and after each task.
        self.before: float | None = None
        self.after: list[float | None] = []
        self._held_out: ContinualDataModule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the source, and check that its classes are not those of the stream."""
        stream = require_stream(trainer, type(self).__name__)
        if stage != "fit":
            return
        check_text_tower(find_clip(pl_module)[1])
        self._held_out = ContinualDataModule(self.source, Joint(), eval_batch_size=self.batch_size)
        self._held_out.setup("validate")
        refuse_trained(self._held_out.info.class_names, stream.info.class_names)
        self.before, self.after = None, [None] * stream.info.num_tasks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the model as it was given, unless a checkpoint brought that back."""
        if self.before is None and trainer.global_step == 0:
            self.before = self.measure(trainer, pl_module)

    def on_task_end(self, trainer: Trainer, pl_module: LightningModule, task: Task) -> None:
        """Measure what the task left."""
        self.after[task.index] = self.measure(trainer, pl_module)

    def measure(self, trainer: Trainer, pl_module: Any) -> float:
        """Accuracy on the source's test samples now, in [0, 1]."""
        assert self._held_out is not None
        names = class_names(self._held_out.info.class_names, self._held_out.info.num_classes)
        right = total = 0
        with evaluating(pl_module):
            rows = read_texts(pl_module, fill_templates(names, [self.template]))
            for batch in self._held_out.val_dataloader():
                inputs, targets = unpack_for(pl_module, transferred(trainer, batch))
                answers = text_logits(pl_module.head_input(inputs), rows, 1.0).argmax(dim=1)
                right, total = right + int((answers == targets).sum()), total + len(targets)
        return right / total

    def report_facts(self) -> dict[str, Any]:
        """Accuracies before and after, and the points that were lost until the last measured task."""
        measured = [accuracy for accuracy in self.after if accuracy is not None]
        lost = None if self.before is None or not measured else self.before - measured[-1]
        return {"before": self.before, "after": list(self.after), "lost": lost}

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far."""
        return {"version": 1, "before": self.before, "after": list(self.after)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on; an extended stream has more tasks."""
        self.before, after = state_dict["before"], state_dict["after"]
        self.after = after + [None] * (len(self.after) - len(after))


def read_texts(pl_module: Any, texts: Sequence[str]) -> Tensor:
    """``(T, D)`` text features of unit length or less, under the prompts of a method of the module if it has some."""
    learned = [part for part in pl_module.continual.parts.values() if isinstance(part, TextFeatures)]
    if learned:
        return learned[0].features_of(texts)
    _, clip = find_clip(pl_module)
    tower = text_tower(clip)
    tokens = clip_tokens(texts, tower.context_length)
    return encode_texts(clip, tokens.to(tower.positional_embedding.device))


def refuse_trained(held_out: Sequence[str], trained: Sequence[str]) -> None:
    """Check that no class is in both.

    Raises:
        ValueError: If one is: its accuracy would tell of training, not of transfer.
    """
    known = {name.lower() for name in trained}
    both = [name for name in held_out if name.lower() in known]
    if both:
        raise ValueError(
            f"the stream trains {len(both)} of the {len(held_out)} classes that ZeroShotTransfer measures "
            f"({', '.join(map(repr, both[:5]))}); give a source of other classes, such as "
            "`ClassSubset(source, classes=[...])`."
        )
