"""Low-rank updates of which a part is not learned freely: given input directions, directions of unit length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from lightning_cl.nn.adapters.banks import LoRA, Slots


class FixedDownLoRA(LoRA):
    """A LoRA whose ``A`` is a buffer that a method sets, zero at first (InfLoRA, arXiv:2404.00228); ``B`` learns.

    The arguments are those of :class:`LoRA`.
    """

    def __init__(
        self, slots: int, in_features: int, out_features: int, rank: int, scale: float = 1.0, start: int = 0
    ) -> None:
        super().__init__(slots, in_features, out_features, rank, scale, start)
        shape = self.down.shape
        del self.down
        self.register_buffer("down", torch.zeros(shape))

    def added(self, x: Tensor, paths: Sequence[Slots]) -> Tensor:
        """Slot after slot, so that one more of zeros changes no bit."""
        first, *more = (
            super(FixedDownLoRA, self).added(x, [(slot,) for slot in slots]) for slots in zip(*paths, strict=True)
        )
        return sum(more, first)


class ScaledLoRA(LoRA):
    """``y + sum_slots a_i B_i A_i x`` with a magnitude for each slot (SD-LoRA, arXiv:2501.13198).

    Magnitudes learn in all slots that answer, directions in those of :attr:`Bank.learning`. The arguments
    are those of :class:`LoRA`, with a magnitude in the place of the scale.

    Args:
        magnitude: ``a`` at the start.
        start: First channel of ``y`` that is added to.
    """

    magnitude: Tensor

    def __init__(
        self, slots: int, in_features: int, out_features: int, rank: int, magnitude: float = 0.8, start: int = 0
    ) -> None:
        super().__init__(slots, in_features, out_features, rank, 1.0, start)
        self.magnitude = nn.Parameter(torch.full((slots,), magnitude))
        self.growing = (*self.growing, "magnitude")

    def slot_of(self, name: str, slot: int) -> Tensor:
        """One slice of a parameter; ``B`` with its magnitude."""
        part = super().slot_of(name, slot)
        return part * self.magnitude[slot] if name == "up" else part

    @torch.no_grad()
    def normalize(self, slot: int, reset: float | None = None) -> None:
        """Scale a slot's ``A`` and ``B`` to Frobenius length 1, and its magnitude so that what is added stays.

        Args:
            slot: One whose ``B`` is zero is left alone.
            reset: What all magnitudes up to this slot become instead.
        """
        for part in (self.down, self.up):
            length = torch.linalg.vector_norm(part[slot])
            length = torch.where(length > 0, length, 1.0)
            part[slot] /= length
            self.magnitude[slot] *= length
        if reset is not None:
            self.magnitude[: slot + 1] = reset

    def protected(self, trained: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """As for others, but of the magnitudes only those of slots behind the trained ones."""
        for parameter, others in super().protected(trained):
            late = others[others > max(trained)]
            kept = late if parameter is self.magnitude else others
            if len(kept):
                yield parameter, kept
