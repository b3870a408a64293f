"""Whether a module's training step uses the prompts at all: found out once, in the first step of a run."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_cl.nn.prompts import PromptProvider


class PromptUse:
    """Notes whether a gradient reaches the prompts in the first training step that makes a backward pass.

    It looks at gradients alone, since a hook on the network would make ``torch.compile`` compile it twice.

    Args:
        vit: The network that asks for them.
        provider: The prompts.

    Attributes:
        known: Nothing is left to find out.
    """

    def __init__(self, vit: nn.Module, provider: PromptProvider) -> None:
        self.vit, self.provider, self.known = vit, provider, False
        self._stepped = self._missed = False

    def begin_step(self) -> None:
        """Begin to watch a user's step; not one in which another method trains the head alone."""
        self._stepped, self._missed = True, False

    def note(self, module: nn.Module) -> None:
        """Note whether gradients reached the prompts, behind the backward passes and before any is dropped."""
        if self._stepped and any(p.grad is not None for p in module.parameters()):
            named = self.provider.named_parameters()
            learning = [p for name, p in named if p.requires_grad and name not in self.provider.learns_apart]
            self.known = not learning or any(p.grad is not None for p in learning)
            self._missed = not self.known

    def require(self, module: Any) -> None:
        """Refuse a module whose step made backward passes of which none reached the prompts.

        Raises:
            ValueError: Names the ways in which a step passes by the prompts.
        """
        if self.known or not self._missed:
            return
        path = next((name for name, part in module.named_modules() if part is self.vit), "")
        name, vit = type(module).__name__, f"self.{path}" if path else "self"
        raise ValueError(
            f"no gradient reached the prompts in the first training step, so only the head would learn: "
            f"`{name}.training_step` calls `{vit}` without gradient (`torch.no_grad`, `detach`), or not through its "
            "`forward` (`forward_intermediates`, `get_intermediate_layers` and blocks called by hand know no prompts); "
            f"call `{vit}(images)` or `{vit}.forward_features(images)` with gradient."
        )
