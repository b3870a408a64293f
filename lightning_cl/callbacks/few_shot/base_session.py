"""The base of methods that learn their features in the base session, the first task of a few-shot stream."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from lightning_cl.callbacks.base import ContinualMethod, require_stream
from lightning_cl.callbacks.boundaries import check_boundaries
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.mixins.base import TrainMask
from lightning_cl.namespace import LightningModule, Trainer


@dataclass(eq=False)
class BaseSessionMethod(ContinualMethod):
    """A method for streams whose first task has the most classes, in which all classes seen compete."""

    boundaries: ClassVar[Boundaries] = "needed"

    _: KW_ONLY
    train_mask: TrainMask = "seen"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a stream without a base session; attach to the module, once."""
        check_base_session(require_stream(trainer, type(self).__name__), type(self).__name__)
        super().setup(trainer, pl_module, stage)


def check_base_session(stream: Any, who: str) -> None:
    """Check that the first task of a stream can be the base session of all others.

    Args:
        stream: The Trainer's.
        who: The method.

    Raises:
        ValueError: If samples arrive once, in a fixed order, or a later task holds more classes than the first.
    """
    check_boundaries(stream, who, "ends its base session", "a method that needs no base session")
    first, *later = (len(classes) for classes in stream.info.classes_per_task)
    if max(later, default=0) > first:
        raise ValueError(
            f"{who} learns its features in the base session, the first task, but the first task of this stream has "
            f"{first} classes and a later one {max(later)}; use the scenario `FewShot`, or put the task with the most "
            "classes first."
        )
