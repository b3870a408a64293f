"""Naive fine-tuning with class masks: FT (``"all"``, ``"seen"``) and FT++ (``"task"``); of all weights, or of some."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from torch import nn

from lightning_cl.callbacks.arguments import pattern
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.adapters import freeze_all_but
from lightning_cl.nn.adapters.injection import named_parts
from lightning_cl.nn.adapters.sites import ending


@dataclass(eq=False)
class FineTuning(ContinualMethod):
    r"""The lower reference: train on each task in turn, with nothing against forgetting.

    With ``train_mask="task"`` (FT++, the baseline of CODA-Prompt, arXiv:2211.13218) only the classes of the current
    task compete in the loss, and the head rows of all other classes stay as they are, bit for bit. The
    released learner of FT++ also builds its optimiser anew for each task, which is ``reset_optimizer=True``. With
    ``"seen"`` or ``"all"`` it is plain fine-tuning; without any callback too, but then evaluation does not mask unseen
    classes.

    With ``at`` only some layers and the head learn, all else is frozen. In front of ``L2SP``, ``EWC``, ``LwF`` or
    ``FeatureDistillation`` in the list of callbacks, with ``at=r"attn\.qkv"``, this is the setting of "A closer look at
    rehearsal-free continual learning" (Smith et al., CVPRW 2023, arXiv:2203.17269).

    Args:
        at: Regular expression of the ends of the names of the layers that learn; ``None``: all weights do.

    Raises:
        ValueError: If ``at`` is no regular expression; when attached, if no layer with weights has such a name.
    """

    state_key: ClassVar[str] = "lightning_cl.FineTuning"
    needs_forward: ClassVar[bool] = False

    head: str | None = None
    train_mask: TrainMask = "task"
    reset_optimizer: bool = False
    _: KW_ONLY
    at: str | None = pattern(default=None)

    def build(self, pl_module: Any, info: Any) -> None:
        """Freeze all but the head and the layers that are named, if some are."""
        if self.at is None:
            return
        found = list(named_parts(pl_module, ending(self.at)).values())
        learning = [p for part in found for p in part.parameters() if p.requires_grad]
        if not learning:
            known = [name for name, part in pl_module.named_modules() if isinstance(part, nn.Linear)]
            raise ValueError(
                f"`at={self.at!r}` names no layer with weights of this {type(pl_module).__name__}; its linear layers "
                f"are {', '.join(known[:6]) or 'missing'}."
            )
        freeze_all_but(pl_module, pl_module.continual.head_path, skip=("continual",))
        for parameter in learning:
            parameter.requires_grad_(True)
