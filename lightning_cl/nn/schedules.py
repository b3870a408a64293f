"""Learning-rate multipliers by epoch within a task, as pure functions."""

from __future__ import annotations

import math


def coda_cosine(epoch: int, epochs: int) -> float:
    """Compute the quarter cosine of the CODA-Prompt and OVOR code as it is written: ``cos(99 pi e / (200 (E - 1)))``.

    It starts at 1 and ends at 0.0157, not at 0. A task of one epoch, for which the formula is undefined, is trained at
    the full rate. The released training loop lags it by one epoch: see :func:`coda_cosine_released`.

    Args:
        epoch: Epoch ``e`` within the task, from 0; past the last epoch the last multiplier stays, which is what
            ``LambdaLR`` asks for after the last step.
        epochs: Epochs ``E`` of the task, at least 1.

    Returns:
        Multiplier of the learning rate, in (0, 1].

    Raises:
        ValueError: If ``epochs`` is below 1 or ``epoch`` below 0.
    """
    if epochs < 1 or epoch < 0:
        raise ValueError(f"epoch {epoch} of {epochs} does not exist; epochs count from 0 and a task has at least one.")
    if epochs == 1:
        return 1.0
    return math.cos(99 * math.pi * min(epoch, epochs - 1) / (200 * (epochs - 1)))


def coda_cosine_released(epoch: int, epochs: int) -> float:
    """Compute the multipliers of the released CODA-Prompt and OVOR runs: :func:`coda_cosine`, an epoch late.

    The constructor of their scheduler sets its counter one back, so the step after the first epoch repeats the first
    rate, and the last rate of the formula is never reached: 1, 1, cos(x), cos(2 x), ..., which ends at 0.0974 for 20
    epochs and at 0.0474 for 50.

    Args:
        epoch: Epoch ``e`` within the task, from 0; past the last epoch the last multiplier stays.
        epochs: Epochs ``E`` of the task, at least 1.

    Returns:
        Multiplier of the learning rate, in (0, 1].

    Raises:
        ValueError: If ``epochs`` is below 1 or ``epoch`` below 0.
    """
    late = max(min(epoch, epochs - 1) - 1, 0) if epoch >= 0 else epoch
    return coda_cosine(late, epochs)


def cpe_clip_warmup(epoch: int, epochs: int) -> float:
    """What the official CPE-CLIP runs really train with: rates 0.001, 0.00298, 0.00496, ... for a rate of 0.001.

    Their scheduler warms up over 50 steps from 0.001 to 0.1 and then follows a cosine back until step 200, but is
    stepped once an epoch and built anew in every session, so that five or six epochs see only its beginning. The
    nominal rate of their command line is never used.

    Args:
        epoch: Epoch ``e`` within the task, from 0.
        epochs: Epochs of the task; plays no part.

    Returns:
        Multiplier of the learning rate: ``1 + 1.98 e`` up to epoch 50.

    Raises:
        ValueError: If ``epoch`` is below 0.
    """
    if epoch < 0:
        raise ValueError(f"epoch {epoch} does not exist; epochs count from 0.")
    step = epoch % 200
    if step < 50:
        return 1.0 + 99.0 * step / 50
    return 1.0 + 99.0 * (1 + math.cos(math.pi * (step - 50) / 150)) / 2


def warm_restarts(epoch: int, lr: float, least: float = 5e-4) -> float:
    """Learning rate of GDumb's training on its memory: cosines of 1, 2, 4, ... epochs, the first at a tenth.

    Within a cycle of ``T`` epochs the rate is ``least + (lr - least) (1 + cos(pi e / T)) / 2`` in its epoch ``e``
    (SGDR, arXiv:1608.03983, with ``T_0 = 1`` doubled at every restart). Epoch 0 comes before the first cycle.

    Args:
        epoch: From 0.
        lr: Rate at a restart.
        least: What the cosine falls to.
    """
    if epoch == 0:
        return lr / 10
    length = 2 ** (epoch.bit_length() - 1)  # cycles begin at the epochs 1, 2, 4, ...
    return least + (lr - least) * (1 + math.cos(math.pi * (epoch - length) / length)) / 2


def warm_cosine(step: int, steps: int, warmup: int, least: float, most: float = 1.0) -> float:
    """Re-warm a learning rate in a line and decay it again along a cosine (arXiv:2403.08763).

    It starts at ``least`` and would be ``least`` again at ``step = steps``, the first step of the next task, so that
    tasks follow each other without a jump.

    Args:
        step: Within the task, from 0; past the end the rate stays at ``least``.
        steps: Of the task, at least 1.
        warmup: Steps until the peak, in [0, steps].
        least: Rate at both ends, such as 0.1 of a peak of 1.
        most: Rate at the peak.

    Returns:
        Rate in ``[least, most]``; that of step ``warmup`` is ``most``.
    """
    if step < warmup:
        return least + (most - least) * step / warmup
    done = min((step - warmup) / max(steps - warmup, 1), 1.0)
    return least + (most - least) * (1 + math.cos(math.pi * done)) / 2


def infinite_rate(step: int, lengths: tuple[int, int, int], steps: int, constant: float, least: float) -> float:
    """Learning rate that needs no re-warming: warm-up, cool-down to a constant, and an annealing at the very end.

    The infinite schedule of arXiv:2403.08763 with a cosine cool-down, for a peak of 1: from ``least`` in a line to 1,
    along a cosine to ``constant``, which stays however many tasks come, and in the last steps
    ``constant * (least / constant) ** t`` down to ``least``.

    Args:
        step: Within the stream, from 0; past the end the rate stays what it was there.
        lengths: Steps of warm-up, cool-down and annealing, each at least 0.
        steps: Of the stream.
        constant: Above 0.
        least: Above 0, at most ``constant``.
    """
    warmup, cooldown, annealing = lengths
    if annealing and step > steps - annealing:
        return float(constant * (least / constant) ** min((step - steps + annealing) / annealing, 1.0))
    if step < warmup:
        return least + (1 - least) * step / warmup
    done = min((step - warmup) / cooldown, 1.0) if cooldown else 1.0
    return constant + (1 - constant) * (1 + math.cos(math.pi * done)) / 2
