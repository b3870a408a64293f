"""What the first parts of a network answered in a call, for further passes through the parts behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from lightning_cl.nn.extension import extend
from lightning_cl.training.find_modules import enclosing, part_at


class SharedPart(nn.Module):
    """Mixin for a live part before the stage: in further passes it answers as it did."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The recorded answer, or the part's own."""
        outputs, path = self.__dict__["_shares"]
        return outputs.answer(path, lambda: super(SharedPart, self).forward(*args, **kwargs))


class SharedOutputs:
    """Records what the parts of a module answer before a stage is entered, and repeats it in further passes.

    The parts are the outermost ones that do not hold the stage, so that whatever code is between them runs again on the
    same values, and gradients of all passes meet in the recorded answers.

    Args:
        module: A LightningModule; every part of it that may be called before the stage is extended.
        stage: Dotted path of the stage.

    Raises:
        ValueError: If there is no such part.
    """

    def __init__(self, module: Any, stage: str) -> None:
        part_at(module, stage, "stage").register_forward_pre_hook(self._enter)
        self.first = stage
        self.names = [name for name, _ in module.named_modules()]
        self.before = False
        self.known: dict[str, list[Any]] = {}
        self._left: dict[str, list[Any]] | None = None
        for network in enclosing(module, stage):
            for part in network.children():
                path = next(name for name, known in module.named_modules() if known is part)
                if not f"{stage}.".startswith(f"{path}.") and not self._is_behind(path):
                    extend(part, SharedPart)
                    part.__dict__["_shares"] = (self, path)

    def is_behind(self, name: str) -> bool:
        """Whether a weight belongs to the stage, or to a part that was registered behind it."""
        return self._is_behind(name.rpartition(".")[0])

    def record(self) -> None:
        """A call begins whose answers are recorded until the stage is entered."""
        self.known, self._left, self.before = {}, None, True

    def replay(self) -> None:
        """A further pass begins."""
        self._left, self.before = {path: list(outputs) for path, outputs in self.known.items()}, True

    def forget(self) -> None:
        """The call is over."""
        self.known, self._left, self.before = {}, None, False

    def answer(self, path: str, own: Callable[[], Any]) -> Any:
        """What the part answers in this pass."""
        if not self.before:
            return own()
        if self._left is not None:
            return self._left[path].pop(0)
        output = own()
        self.known.setdefault(path, []).append(output)
        return output

    def _is_behind(self, path: str) -> bool:
        return path in self.names and self.names.index(path) >= self.names.index(self.first)

    def _enter(self, stage: nn.Module, args: Any) -> None:
        self.before = False
