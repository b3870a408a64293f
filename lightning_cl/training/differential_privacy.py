"""Differentially private training: gradients clipped sample by sample, noise by an accountant (DP-SGD)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.fisher import per_sample_gradients
from lightning_cl.nn.substitution import NORMS
from lightning_cl.nn.weights import trained

Weights = Mapping[str, Tensor]


def clipped_sum(
    loss: Callable[[Weights, Tensor, Tensor], Tensor], weights: Weights, inputs: Tensor, targets: Tensor, clip: float
) -> dict[str, Tensor]:
    """Sum of the samples' gradients, each of all weights together shortened to a length of at most ``clip``.

    So no sample, whatever it is, moves the sum by more than ``clip``; what is not finite in a gradient counts as 0.

    Args:
        loss: Scalar of weights, ``(1, ...)`` inputs and ``(1, ...)`` targets.
        weights: By name.
        inputs: ``(B, ...)``.
        targets: ``(B, ...)``.
        clip: Above 0.
    """
    if not len(targets):
        return {name: torch.zeros_like(weight) for name, weight in weights.items()}
    known = {name: weight.detach() for name, weight in weights.items()}
    found = per_sample_gradients(loss, known, inputs, targets, randomness="different")
    each = {name: gradient.nan_to_num(0.0, 0.0, 0.0) for name, gradient in found.items()}
    lengths = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in each.values()]).norm(dim=0)
    factors = (clip / lengths.clamp_min(1e-12)).clamp_max(1.0)
    return {name: torch.einsum("b,b...->...", factors, gradient) for name, gradient in each.items()}


def noise_for(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Standard deviation of the noise in units of ``clip`` for a budget, from the RDP accountant of Opacus.

    Args:
        epsilon: Above 0.
        delta: In (0, 1).
        sample_rate: Chance of a sample to be in a batch (Poisson sampling), in (0, 1].
        steps: Of the training.

    Raises:
        ImportError: If Opacus is not there.
    """
    try:
        from opacus.accountants.utils import get_noise_multiplier
    except ImportError as error:
        raise ImportError(
            "the noise of private training is calibrated by Opacus, which is not installed; install it with "
            "`pip install lightning_cl[private]`."
        ) from error
    found = get_noise_multiplier(
        target_epsilon=epsilon, target_delta=delta, sample_rate=sample_rate, steps=steps, accountant="rdp"
    )
    return float(found)


@torch.no_grad()
def noisy_step(
    weights: Weights, total: Weights, scale: float, expected: float, lr: float, decay: float, generator: torch.Generator
) -> None:
    """``w -= lr ((sum + N(0, scale^2)) / expected + decay w)``, in place.

    Args:
        weights: By name.
        total: The clipped sums of a batch.
        scale: Standard deviation of the noise, at least 0.
        expected: Samples of a batch on average, never their number, which is private.
        lr: Learning rate.
        decay: Weight decay.
        generator: On the CPU.
    """
    for name, weight in weights.items():
        noise = torch.randn(weight.shape, generator=generator).to(weight) * scale
        weight.sub_(lr * ((total[name] + noise) / expected + decay * weight))


def private_fit(
    module: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    epsilon: float,
    delta: float,
    steps: int,
    sample_rate: float,
    lr: float,
    clip: float = 1.0,
    weight_decay: float = 0.0,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    seed: int = 0,
) -> float:
    """Train a module by DP-SGD, so that what it learned of any one sample is bounded by ``(epsilon, delta)``.

    The base of DP2Unlearning (arXiv:2504.13774): keep a copy of what comes out, serve a copy that is fine-tuned on all
    samples, and on each request to forget begin again from the base, with the retained samples only. Never from a model
    that was unlearned before. The bound holds for the base alone, and only if nothing else about it was chosen with the
    samples: class names, tokenisers, learning rates.

    Batches are Poisson samples, gradients are clipped sample by sample (arXiv:1607.00133), and Opacus calibrates the
    noise. It is drawn by torch's generator, which is not cryptographically secure. One process; all samples in memory.

    Args:
        module: Its ``forward`` maps ``(B, ...)`` inputs to what ``loss`` takes; trained weights change in place.
        inputs: ``(N, ...)``.
        targets: ``(N, ...)``.
        epsilon: Above 0; 0.5 in the paper.
        delta: Above 0 and below ``1 / N``.
        steps: At least 1.
        sample_rate: In (0, 1].
        lr: Of SGD.
        clip: Above 0.
        weight_decay: At least 0.
        loss: Mean loss of outputs and targets.
        seed: Of batches and noise.

    Returns:
        The noise multiplier that was used.

    Raises:
        ImportError: If Opacus is not there.
        ValueError: If ``delta`` is not below ``1 / N``, or the module has batch norm, which mixes samples.
    """
    _check(module, len(targets), delta)
    noise, generator = noise_for(epsilon, delta, sample_rate, steps), torch.Generator().manual_seed(seed)

    def of_sample(known: Weights, row: Tensor, wanted: Tensor) -> Tensor:
        return loss(torch.func.functional_call(module, dict(known), (row,)), wanted)

    weights: dict[str, Any] = dict(trained(module))
    for _ in range(steps):
        rows = (torch.rand(len(targets), generator=generator) < sample_rate).to(targets.device)
        total = clipped_sum(of_sample, weights, inputs[rows], targets[rows], clip)
        noisy_step(weights, total, noise * clip, sample_rate * len(targets), lr, weight_decay, generator)
    return noise


def _check(module: nn.Module, samples: int, delta: float) -> None:
    if not 0 < delta < 1 / samples:
        raise ValueError(
            f"`delta` is {delta}, but there are {samples} samples: a sample could be given away whole; give a number "
            f"above 0 and below {1 / samples:g}."
        )
    mixing = [name for name, part in module.named_modules() if isinstance(part, NORMS)]
    if mixing:
        raise ValueError(
            f"`{mixing[0]}` is batch norm, which mixes the samples of a batch, so that no gradient is of one alone; "
            "use group or layer norm."
        )
