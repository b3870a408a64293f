"""Skips the frozen part of a foreign module when the features of the images are known."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lightning_cl.mixins.extending import extend
from lightning_cl.nn.feature_cache import FeatureCache


class Bypassed:
    """Mixin for the module that is skipped: its ``forward`` asks the bypass first."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The known answer, or the module's own."""
        bypass: FeatureBypass = self.__dict__["_feature_bypass"]
        known = bypass.answer(super().forward, args, kwargs)  # type: ignore[misc]
        return super().forward(*args, **kwargs) if known is None else known  # type: ignore[misc]


class FeatureBypass:
    """Remembers what reaches the head for each evaluation image, and finds the module that can be skipped.

    In the first announced pass it watches which module's output *is* (the same tensor as) the head's output, or the
    head's input: that module computes nothing but features, and from then on it is skipped for known images. When the
    module's own code works on the features in between, nothing is skipped and results stay right.

    Args:
        root: The LightningModule.
        head: Its head, the input of which is remembered.
    """

    def __init__(self, root: nn.Module, head: nn.Module) -> None:
        self.root, self.head = root, head
        self.cache = FeatureCache()
        self.skipped: str | None = None
        self._makes_logits = False
        self._searched = False
        self._hooks: list[Any] = []
        self._outputs: list[tuple[nn.Module, Any]] = []
        self._features: Tensor | None = None
        self._logits: Any = None

    def answer(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Logits or features of the announced images if they are known, else ``None``.

        When some are known and the module is called with one tensor, only the others are computed.
        """
        features = self.cache.lookup()
        if features is None:
            features = self._complete(forward, args, kwargs)
        if features is None:
            return None
        self.cache.forget_expectation()
        return self.head(features) if self._makes_logits else features

    def _complete(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        expected, missing = self.cache.expected, self.cache.missing()
        one_tensor = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        if missing is None or bool(missing.all()) or not one_tensor or len(missing) != len(args[0]):
            return None
        self.cache.narrow(missing)
        output = forward(args[0][missing.to(args[0].device)])
        if not self._makes_logits:
            self.cache.remember(output)
        assert expected is not None
        self.cache.expect(*expected)
        return self.cache.lookup()

    def watch(self) -> None:
        """A pass over announced images begins: remember their features and, the first time, every module's output."""
        self._remove_hooks()
        # After the other hooks, so that the output is the head's final answer.
        self._hooks = [self.head.register_forward_hook(self._remember)]
        if not self._searched:
            others = [m for m in self.root.modules() if m is not self.head]
            self._hooks += [m.register_forward_hook(lambda m, _, out: self._outputs.append((m, out))) for m in others]

    def release(self) -> None:
        """The pass is over; choose the module to skip if that is still to be done."""
        self._remove_hooks()
        if not self._searched and self._features is not None:
            self._searched = True
            self._choose(self._outputs, self._features, self._logits)
        self._outputs, self._features, self._logits = [], None, None
        self.cache.forget_expectation()

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _remember(self, head: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._features is None and isinstance(args[0], Tensor) and args[0].ndim == 2:
            self._features, self._logits = args[0], output
            self.cache.remember(args[0])
            self.cache.forget_expectation()

    def _choose(self, outputs: list[tuple[nn.Module, Any]], features: Tensor, logits: Any) -> None:
        makes_logits = [m for m, out in outputs if out is logits]
        makes_features = [m for m, out in outputs if out is features and any(True for _ in m.parameters())]
        if makes_logits or makes_features:
            self._makes_logits = bool(makes_logits)
            # Hooks fire inside out, so the last is the outermost.
            self._skip((makes_logits or makes_features)[-1])

    def _skip(self, module: nn.Module) -> None:
        extend(module, Bypassed)
        module.__dict__["_feature_bypass"] = self
        self.skipped = next(name for name, m in self.root.named_modules() if m is module) or "(the module itself)"

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureBypass:
        """A copy starts with an empty cache and searches again."""
        return FeatureBypass(copy.deepcopy(self.root, memo), copy.deepcopy(self.head, memo))
