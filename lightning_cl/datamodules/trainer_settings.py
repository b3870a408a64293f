"""Changes in the Trainer for the time of a fit on a stream."""

from __future__ import annotations

from lightning_cl.namespace import Trainer

#: For ``Trainer.reload_dataloaders_every_n_epochs``: no epoch is fewer epochs after the last one that was loaded.
_ALWAYS = -1


class StreamTrainer(Trainer):
    """A Trainer in a fit on a stream: it counts the optimiser steps of all tasks, not those of one for each."""

    @property
    def estimated_stepping_batches(self) -> int | float:
        """Optimiser steps of the fit; see :meth:`ContinualDataModule.count_steps`."""
        return int(self.datamodule.count_steps())  # type: ignore[attr-defined]


class TrainerSettings:
    """What a fit changes in a Trainer, which stays the same object, and gives back in the end.

    Attributes:
        overfit_batches: As the user gave it. In the fit it is 0, for Lightning's way to repeat batches is for the data
            loaders of torch; the limits of the batches that come with it stay.
        num_sanity_val_steps: As the user gave it. A resumed run makes none: the run that it goes on with has made them.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.overfit_batches: int | float = trainer.overfit_batches  # type: ignore[attr-defined]
        self.num_sanity_val_steps: int | float = trainer.num_sanity_val_steps
        trainer.overfit_batches = 0.0  # type: ignore[attr-defined]
        kind = self._kind = type(trainer)
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        trainer.__class__ = type(kind.__name__, (StreamTrainer, kind), names)
        # Whatever is asked for before the run begins is asked for again then, when the checkpoint has been read.
        reload_data(trainer, True, in_any_epoch=True)

    def give_back(self, trainer: Trainer) -> None:
        """Restore the Trainer's settings."""
        trainer.__class__, trainer.overfit_batches = self._kind, self.overfit_batches  # type: ignore[attr-defined]
        trainer.num_sanity_val_steps = self.num_sanity_val_steps


def reload_data(trainer: Trainer, due: bool, in_any_epoch: bool = False) -> None:
    """Let the Trainer ask for its loaders again, or not, when it comes to use them.

    Args:
        trainer: The Trainer.
        due: Whether it shall ask.
        in_any_epoch: Also if it asked in this epoch before.
    """
    trainer.reload_dataloaders_every_n_epochs = int(due) * (_ALWAYS if in_any_epoch else 1)  # type: ignore[attr-defined]
