"""Skips the frozen part of a foreign module when the features of the images are known."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lightning_cl.nn.adapters.injection import Adapters
from lightning_cl.nn.adapters.paths import behind, beside
from lightning_cl.nn.extension import extend
from lightning_cl.nn.feature_cache import FeatureCache, sample_fingerprints


class Bypassed:
    """Mixin for the module that is skipped: its ``forward`` asks the bypass first."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The known answer, or the module's own."""
        bypass: FeatureBypass = self.__dict__["_feature_bypass"]
        return bypass.run(super().forward, args, kwargs)  # type: ignore[misc]


class Call(NamedTuple):
    """One call of a module, with what it was given and what it answered."""

    module: nn.Module
    given: Any
    output: Any


class FeatureBypass:
    """Remembers what reaches the head for each evaluation image, and finds the module that can be skipped.

    In the first announced pass it watches which module's output *is* (the same tensor as) the head's output, or the
    head's input: that module computes nothing but features, and from then on it is skipped for known images, those
    whose input is what it was. When the module's own code works on the features in between, nothing is skipped and
    results stay right.

    Args:
        root: The LightningModule.
        head: Its head, the input of which is remembered.
        adapters: Whose paths the head gets one after the other, ``(P * B, D)``; ``None``: there is one.
    """

    def __init__(self, root: nn.Module, head: nn.Module, adapters: Adapters | None = None) -> None:
        self.root, self.head, self.adapters = root, head, adapters
        self.cache = FeatureCache()
        self.skipped: str | None = None
        self._makes_logits = False
        self._searched = False
        self._hooks: list[Any] = []
        self._calls: list[Call] = []
        self._features: Tensor | None = None
        self._logits: Any = None
        self._computing: tuple[Tensor, Tensor | None] | None = None

    def run(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Logits or features of the announced images: remembered where they are known, else what ``forward`` answers.

        When some are known and the module is called with one tensor, only the others are computed.
        """
        prints = self._fingerprints((args, kwargs))
        if prints is None:
            return forward(*args, **kwargs)
        missing = ~self.cache.matches(prints)
        try:
            if 0 < int(missing.sum()) < len(missing) and len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
                rest = args[0][missing.to(args[0].device)]
                self._compute(forward, (rest,), {}, prints[missing], missing)
                missing = ~self.cache.matches(prints)
            if bool(missing.any()):
                return self._compute(forward, args, kwargs, prints)
            features = self._recall()
        finally:
            self.cache.forget_expectation()
        return self.head(features) if self._makes_logits else features

    def _compute(
        self,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        prints: Tensor,
        chosen: Tensor | None = None,
    ) -> Any:
        """The module's own answer for (the ``chosen`` of) the announced images, whose features are remembered."""
        self._computing = prints, chosen
        try:
            output = forward(*args, **kwargs)
        finally:
            self._computing = None
        if not self._makes_logits and isinstance(output, Tensor) and output.ndim == 2:
            self._keep(output, prints, chosen)
        return output

    def _keep(self, features: Tensor, prints: Tensor, chosen: Tensor | None = None) -> None:
        """Remember what reaches the head for an image, those of its paths side by side."""
        self.cache.remember(features if self.adapters is None else beside(self.adapters, features), prints, chosen)

    def _recall(self) -> Tensor:
        """What reaches the head for the announced images."""
        features = self.cache.recall()
        return features if self.adapters is None else behind(self.adapters, features)

    def _fingerprints(self, given: Any) -> Tensor | None:
        """``(B,)`` of what a module is given for the announced images; ``None`` if that has no row for each of them."""
        if self.cache.expected is None:  # nor is `torch.export` to follow what comes here
            return None
        tensors: list[Tensor] = []
        apply_to_collection(given, Tensor, tensors.append)
        prints = [sample_fingerprints(t) for t in tensors if t.ndim and self.cache.awaits(len(t))]
        return torch.stack(prints).cumsum(0).sum(0) if prints else None  # weighed by their place

    def watch(self) -> None:
        """A pass over announced images begins: remember their features and, the first time, every module's output."""
        self._remove_hooks()
        # After the other hooks, so that the output is the head's final answer.
        self._hooks = [self.head.register_forward_hook(self._remember)]
        if not self._searched:
            others = [m for m in self.root.modules() if m is not self.head]
            self._hooks += [m.register_forward_hook(self._note, with_kwargs=True) for m in others]

    def release(self) -> None:
        """The pass is over; choose the module to skip if that is still to be done."""
        self._remove_hooks()
        if not self._searched and self._features is not None:
            self._searched = True
            self._choose(self._features, self._logits)
        self._calls, self._features, self._logits = [], None, None
        self.cache.forget_expectation()

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self._calls.append(Call(module, (args, kwargs), output))

    def _remember(self, head: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Forward hook of the head: what it was given, in the search or while the skipped module makes the logits."""
        if not isinstance(args[0], Tensor) or args[0].ndim != 2:
            return
        if self._features is None:
            self._features, self._logits = args[0], output
        if self._makes_logits and self._computing is not None:
            self._keep(args[0], *self._computing)
            self._computing = None  # the first call only

    def _choose(self, features: Tensor, logits: Any) -> None:
        # Not what works on the head's answer within its hooks, as the class mask does.
        around = [c for c in self._calls if any(part is self.head for part in c.module.modules())]
        makes_logits = [call for call in around if call.output is logits]
        makes_features = [c for c in self._calls if c.output is features and any(True for _ in c.module.parameters())]
        if not (makes_logits or makes_features):
            return
        self._makes_logits = bool(makes_logits)
        call = (makes_logits or makes_features)[-1]  # hooks fire inside out, so the last is the outermost
        self._skip(call.module)
        prints = self._fingerprints(call.given)
        if prints is not None:
            self._keep(features, prints)

    def _skip(self, module: nn.Module) -> None:
        extend(module, Bypassed)
        module.__dict__["_feature_bypass"] = self
        self.skipped = next(name for name, m in self.root.named_modules() if m is module) or "(the module itself)"

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureBypass:
        """A copy starts with an empty cache and searches again."""
        root, head = copy.deepcopy(self.root, memo), copy.deepcopy(self.head, memo)
        return FeatureBypass(root, head, copy.deepcopy(self.adapters, memo))
