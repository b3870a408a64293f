"""Gates on units that a task learns to open or shut (HAT, arXiv:1801.01423)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lightning_cl.nn.substitution import WEIGHT_LAYERS

#: Beyond these, exponentials would leave the range of 32 bits, and embeddings would not come back.
LARGEST_EXPONENT, LARGEST_EMBEDDING = 50.0, 6.0
#: Layers that answer zero to zero, unit by unit.
KEEPS_ZERO = (
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Identity, nn.Dropout, nn.Dropout2d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten),
)


def annealed_scale(position: float, largest: float) -> float:
    """``s`` of ``sigmoid(s e)``: from ``1 / largest`` at the start of an epoch (position 0) to ``largest`` at its end.

    Args:
        position: Share of the epoch's samples before the batch, in [0, 1).
        largest: ``s_max``, at least 1.
    """
    return 1 / largest + (largest - 1 / largest) * position


def compensation(embedding: Tensor, scale: float, largest: float) -> Tensor:
    """What the gradient of an embedding is multiplied by, so that its size does not depend on the annealing.

    ``s_max / s * (cosh(s e) + 1) / (cosh(e) + 1)``, of any shape.
    """
    grown = (scale * embedding).clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT)
    return largest / scale * (grown.cosh() + 1) / (embedding.cosh() + 1)


def free_share(used_out: Tensor, used_in: Tensor | None = None) -> Tensor:
    """``1 - min(A_out, A_in)``: what is left of the gradient of weights from units to units that earlier tasks use.

    Args:
        used_out: ``(O,)`` in [0, 1], how far earlier tasks use the units that the weights lead to.
        used_in: ``(I,)`` the same of the units that they come from; ``None``: all are used.

    Returns:
        ``(O, I)``, or ``(O, 1)`` without ``used_in``.
    """
    out = used_out[:, None]
    return 1 - (out if used_in is None else torch.minimum(out, used_in))


def gate_penalty(gates: Iterable[Tensor], used: Iterable[Tensor]) -> Tensor:
    """``sum a (1 - A) / sum (1 - A)``: the share of the units that earlier tasks do not use which a task uses.

    Args:
        gates: ``a`` of each layer, in [0, 1].
        used: ``A`` of each layer.
    """
    free = [1 - taken for taken in used]
    spent = torch.stack([(a * f).sum() for a, f in zip(gates, free, strict=True)]).sum()
    return spent / torch.stack([f.sum() for f in free]).sum().clamp_min(torch.finfo(spent.dtype).tiny)


def units_before(module: nn.Module) -> dict[str, str]:
    """The layer whose units another one reads, by names, where an ``nn.Sequential`` says so.

    Between them is nothing but what answers zero to zero, unit by unit; of all other layers it is not known whose
    units they read.
    """
    found: dict[str, str] = {}
    for prefix, part in module.named_modules():
        if isinstance(part, nn.Sequential) and type(part).forward is nn.Sequential.forward:
            last: tuple[str, nn.Module] | None = None
            for name, layer in part.named_children():
                whole = f"{prefix}.{name}".lstrip(".")
                if isinstance(layer, WEIGHT_LAYERS):
                    if last is not None and _reads(layer, last[1]):
                        found[whole] = last[0]
                    last = whole, layer
                elif not isinstance(layer, KEEPS_ZERO) or (_is_flat(layer) and isinstance(last and last[1], nn.Linear)):
                    last = None
    return found


def _is_flat(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Flatten)  # behind a linear layer it may mix units of several tokens


def _reads(layer: nn.Module, before: nn.Module) -> bool:
    weight, units = layer.weight, before.weight
    assert isinstance(weight, Tensor)
    assert isinstance(units, Tensor)
    return getattr(layer, "groups", 1) == 1 and weight.shape[1] % len(units) == 0
