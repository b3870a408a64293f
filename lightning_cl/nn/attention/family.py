"""The protocol between prompt methods and networks: where a library's blocks are, and what its head reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from torch import Tensor, nn

#: Whole names of the classes of networks, or the classes themselves.
Networks = tuple[str | type[nn.Module], ...]


class AttentionFamily:
    """How the networks of one library are run with prompts; a subclass says what they are made of.

    A network is a chain of blocks, each of which maps ``(B, N, D)`` tokens (its first argument) to as many (its result,
    or the first of a tuple) and attends through ``torch.nn.functional.scaled_dot_product_attention`` or
    ``torch.nn.MultiheadAttention``. Prefix rows join keys and values behind the projections and behind rotary or
    relative positions: they carry no position. Prompt tokens join in front of the others, without a position, before
    the first block; they leave behind :meth:`norm`.

    Attributes:
        name: What the tables and errors call it.
        networks: Classes of its networks: the classes, or their whole names, so that the library need not be there.
        takes_tokens: Whether tokens can join the sequence of any of them; if not, only prefixes work.
    """

    name: ClassVar[str]
    networks: ClassVar[Networks] = ()
    takes_tokens: ClassVar[bool] = True

    def blocks(self, network: Any) -> Sequence[nn.Module]:
        """List the blocks in the order in which they run."""
        raise NotImplementedError

    def width(self, network: Any) -> int:
        """Count the channels ``D`` of a token."""
        raise NotImplementedError

    def norm(self, network: Any) -> nn.Module | None:
        """Name the layer that the tokens pass behind the last block; ``None``: there is none."""
        return None

    def summary(self, network: Any, tokens: Tensor) -> Tensor:
        """Read ``(B, D)`` from ``(B, N, D)`` tokens: the one that stands for the image, or their mean."""
        return tokens[:, 0]

    def feature(self, network: Any, value: Any, inputs: Mapping[str, Any]) -> Tensor | None:
        """Read the feature that the head is given, ``(B, D)``.

        Args:
            network: The network.
            value: What its head was given, or, if no head was reached, what :meth:`entry` returned.
            inputs: What the network was called with, by name.

        Returns:
            ``None`` if there is nothing of this shape in ``value``: :meth:`summary` is taken then.
        """
        fits = isinstance(value, Tensor) and value.ndim == 2 and value.shape[1] == self.width(network)
        return value if fits else None

    def trained_parts(self, network: Any, head: nn.Module) -> Sequence[str]:
        """Name the network's children that learn beside the prompts: those that hold the head."""
        return [name for name, child in network.named_children() if any(part is head for part in child.modules())]

    def joined(self, block: Any, tokens: int) -> AbstractContextManager[Any]:
        """Let ``block`` call torch's attention and give no position to so many tokens in front, while it lasts."""
        return nullcontext()

    def beside(self, given: dict[str, Any], own: int, tokens: int) -> dict[str, Any]:
        """Change what a block is called with beside its ``own`` tokens where so many others are in front of them."""
        return given

    def joins(self, network: Any) -> bool:
        """Say whether tokens can join this network's sequence."""
        return self.takes_tokens

    def check(self, network: Any, first: int) -> None:
        """Refuse, with a ValueError, a network that cannot be run with prompts from block ``first`` on."""

    def prepare(self, network: Any) -> None:
        """Change what must be another way before prompts are put in."""

    def mixin(self, network: Any) -> type[nn.Module] | None:
        """Name a mixin that runs the whole network faster than block by block; ``None``: there is none."""
        return None

    def entry(self, network: Any) -> str:
        """Name the method that goes through the blocks."""
        return "forward"
