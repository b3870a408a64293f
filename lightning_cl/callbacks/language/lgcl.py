"""LGCL as a drop-in callback beside a prompt pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.callbacks.language.language_guided_head import provider_of, with_plain_targets
from lightning_cl.class_embeddings import TargetProvider
from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.mixins.base import TrainMask
from lightning_cl.mixins.language import from_first_process, learn_new
from lightning_cl.nn.lgcl import TextGuide, guidance, other_classes
from lightning_cl.nn.prompts import PromptProvider
from lightning_cl.training import MethodModule, Step


class Guidance(MethodModule):
    """Two loss terms, which pull a prompt pool's keys and the features towards texts."""

    former_keys: ClassVar[dict[str, str]] = {"text_guide.": "guide."}
    known_as: ClassVar[dict[str, str]] = {"text_guide": "guide"}

    def __init__(self, guide: TextGuide, provider: TargetProvider, task_weight: float, class_weight: float) -> None:
        super().__init__()
        self.guide, self.provider = guide, provider
        self.task_weight, self.class_weight = task_weight, class_weight
        self.classes = torch.zeros(0, dtype=torch.long)  # of the current task, as far as they are known

    def start_run(self, module: Any) -> None:
        """Take the task up again in a resumed run."""
        stream = module.trainer.datamodule
        if stream.online:
            self._describe(module, stream.task_index, stream.exposed_classes)
        else:
            self.classes = torch.tensor(stream.task.classes)

    def start_task(self, module: Any, task: Any) -> None:
        """Ask for the texts of the task and of its new classes; of an online stream's classes as they arrive."""
        if task.order == "stream":
            self._describe(module, task.index, task.old_classes)
            return
        names = [module.continual.info.class_names[c] for c in task.classes]
        learn_new(module, task.new_classes, self.guide.known, self.provider, self.guide.add_classes)
        self.guide.add_task(task.index, from_first_process(lambda: self.provider.joint(names)))
        self.classes = torch.tensor(task.classes)

    def expose(self, module: Any, classes: tuple[int, ...]) -> None:
        """Ask for the classes that have just arrived; those that are new since the task began describe it."""
        learn_new(module, classes, self.guide.known, self.provider, self.guide.add_classes)
        self._describe(module, module.trainer.datamodule.task_index, classes)

    def _describe(self, module: Any, task: int, exposed: Sequence[int]) -> None:
        """Nobody tells which classes a task of an online stream has: it is what came since it began, or all so far."""
        before = set(module.continual.info.seen_classes(task - 1)) if task else set()
        self.classes = torch.tensor([c for c in exposed if c not in before] or list(exposed), dtype=torch.long)
        if len(self.classes):
            self.guide.describe_task(task, self.classes)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The terms of keys and features."""
        module, task, guide, terms = step.module, step.task.index, self.guide, dict[str, Tensor]()
        seed = mix_seed(module.trainer.datamodule.seed, module.trainer.global_step, 0x16C1)
        keys = _used_keys(module) if self.task_weight else None
        if keys is not None:
            away = guide.tasks[seed % task] if task else None
            terms["lgcl_task"] = self.task_weight * guidance(keys, guide.tasks[task], away)
        if step.calls and self.class_weight:
            other = other_classes(step.targets, self.classes, torch.Generator().manual_seed(seed))
            away = None if other is None else guide.classes[other]
            terms["lgcl_class"] = self.class_weight * guidance(step.features, guide.classes[step.targets], away)
        return terms


def _used_keys(module: Any) -> Tensor | None:
    """The keys that the step has used, of the module's prompts."""
    pool = next((part for part in module.continual.parts.modules() if isinstance(part, PromptProvider)), None)
    return None if pool is None else pool.used_keys()


@dataclass(eq=False)
class LGCL(ContinualMethod):
    """Language guidance for prompt pools (LGCL, Khan et al., ICCV 2023, arXiv:2308.15827).

    Pulls the keys that a step uses towards a text that names the task's classes, and away from an earlier task's; and
    the features towards the name of their class, and away from another's. ``callbacks=[DualPrompt(), LGCL()]``. Without
    a pool, or with one without keys (``CODAPrompt``, ``OnePrompt``), only the features are guided. The head is trained
    as before, and inference needs no text. Which texts the paper's negatives are is not published in full: here an
    earlier task and another class of the same task, drawn anew in every step. In an online stream, where nobody tells a
    task's classes, those that arrived since it began describe it.

    Args:
        targets: Where texts get their vectors, see :class:`LanguageGuidedHead`; the paper used CLIP ViT-L/14:
            ``OpenCLIPTargets("ViT-L-14-quickgelu", "openai")``. Vectors of another length are turned into the feature
            space.
        task_weight: Weight of the term on the keys.
        class_weight: Weight of the term on the features.
        train_mask: Which classes compete in the training loss; the pool's setting wins if it is stricter.

    Raises:
        ValueError: For a negative weight.
    """

    state_key: ClassVar[str] = "lightning_cl.LGCL"
    needs_forward: ClassVar[bool] = False
    adds_loss: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"targets": "random"}

    targets: TargetProvider | str = "minilm"
    task_weight: float = at_least(0, default=1.0)
    class_weight: float = at_least(0, default=1.0)
    _: KW_ONLY
    train_mask: TrainMask = "seen"

    def build(self, pl_module: Any, info: Any) -> Guidance:
        """The texts' vectors and the loss terms."""
        provider = provider_of(self.targets)
        guide = TextGuide(info.num_classes, info.num_tasks, pl_module.continual_head.in_features, provider.dim)
        return Guidance(guide, provider, self.task_weight, self.class_weight)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values; a provider as its class and arguments."""
        return with_plain_targets(super().config())
