"""The random states and loop positions with which a resumed run goes on bit for bit."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
import torch

from lightning_cl.namespace import Trainer


def random_states(device: torch.device) -> dict[str, Any]:
    """The global generators as tensors and plain Python values; of the accelerators only ``device``."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [str(name), [int(k) for k in keys], int(position), int(has_gauss), float(gauss)],
        "python": [version, list(internal), gauss_next],
    }


def random_states_of_all(trainer: Trainer) -> list[dict[str, Any]]:
    """:func:`random_states` of every process, by rank; all of them call it."""
    own = random_states(trainer.strategy.root_device)
    if trainer.world_size == 1:
        return [own]
    states: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(states, own)
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Inverse of :func:`random_states`."""
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))


def settle_position(loop: dict[str, Any], validation_due: bool, cut_short: bool = False) -> None:
    """Rewrite the saved state of Lightning's fit loop, in place, so that a resumed run leaves nothing out.

    * Saved in ``on_train_batch_end`` when a validation or the end of the epoch was to follow: Lightning would go
      straight on to the next epoch, without that validation, without ``on_train_epoch_end`` and without the next
      ``on_train_epoch_start``. The batch becomes a completed one, in an epoch that is still open, and the validation
      one that was interrupted at its first batch; Lightning then makes up for both.
    * Saved between two epochs: the epoch becomes a completed one, so that ``current_epoch`` is right from the start
      (Lightning corrects it only after it has asked for the training data), also with ``max_steps``.
    * Saved after ``max_steps`` or a stop had ended the run within an epoch: Lightning counts that epoch as completed,
      and its other batches would never be trained on. The epoch becomes one that is still open.

    Args:
        loop: ``checkpoint["loops"]["fit_loop"]``.
        validation_due: A validation was to follow the batch in whose ``on_train_batch_end`` the checkpoint was saved.
        cut_short: The run had ended within an epoch.
    """
    epoch, batch = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
    if cut_short:
        for counts in (epoch["current"], epoch["total"]):
            counts.update(processed=counts["started"] - 1, completed=counts["started"] - 1)
    elif epoch["current"]["started"] == epoch["current"]["processed"]:  # between two epochs
        for counts in (epoch["current"], epoch["total"]):
            _level(counts, counts["processed"])
    elif in_the_end(batch["current"]) and (batch["is_last_batch"] or validation_due):
        for counts in (batch["current"], batch["total"]):
            _level(counts, counts["processed"])
        if validation_due:
            validation = loop["epoch_loop.val_loop.batch_progress"]
            for counts in (validation["current"], validation["total"]):
                counts.update(ready=1, started=1, processed=0, completed=0)
        else:
            loop["epoch_loop.state_dict"]["_batches_that_stepped"] += 1  # as Lightning does after a batch
            for loader in loop["state_dict"].get("combined_loader", ()):
                loader["batch"] = sys.maxsize  # nothing is left, also with `limit_train_batches`


def what_is_due(trainer: Trainer) -> dict[str, bool]:
    """Find what Lightning owes, and forgets in a restart: a validation, a step of schedules, an epoch's rest."""
    fit = trainer.fit_loop
    in_batch = in_the_end(vars(fit.epoch_loop.batch_progress.current))
    return {
        "validation_due": in_batch and validation_follows(trainer),
        "plateau_due": in_the_end(vars(fit.epoch_progress.current)),
        "cut_short": _cut_short(trainer),
    }


def _cut_short(trainer: Trainer) -> bool:
    """Whether the run has ended, and within an epoch."""
    epoch, batches = vars(trainer.fit_loop.epoch_progress.current), trainer.fit_loop.epoch_loop.batch_progress
    ended = epoch["processed"] == epoch["started"] > 0
    return ended and batches.current.ready > 0 and ends_within_epoch(trainer)


def ends_within_epoch(trainer: Trainer) -> bool:
    """Whether ``max_steps`` or a stop ends the run behind a batch that is not the epoch's last."""
    loop = trainer.fit_loop
    reached = trainer.max_steps not in (None, -1) and trainer.global_step >= trainer.max_steps
    ends = reached or (trainer.should_stop and loop._can_stop_early)
    return bool(ends and not loop.epoch_loop.batch_progress.is_last_batch)


def validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning validates behind the batch that it has trained on."""
    fetcher = trainer.fit_loop._data_fetcher
    return bool(fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher))


def in_the_end(counts: dict[str, int]) -> bool:
    """Whether counts were taken in ``on_train_batch_end`` or ``on_train_epoch_end``: processed but not completed."""
    return counts["processed"] > counts["completed"]


def _level(counts: dict[str, int], value: int) -> None:
    counts.update(ready=value, started=value, processed=value, completed=value)
