"""The class head of a module: where it is, what it reads, and what methods answer in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.mixins.state import ContinualState
from lightning_cl.nn.head_layer import NamedRows, is_map, pooled, weight_layer
from lightning_cl.nn.layer_rows import row_parameters
from lightning_cl.nn.masks import ClassMask
from lightning_cl.training.batch import call_with
from lightning_cl.training.find_modules import around, enclosing, find_auxiliary_heads, find_head
from lightning_cl.training.method_module import MethodModule
from lightning_cl.training.model_output import find_logits
from lightning_cl.training.step import HeadCall, TokenCall

if TYPE_CHECKING:
    from lightning_cl.namespace import LightningModule as _Base
else:
    _Base = object


class HeadMixin(_Base):
    """Carries the methods' modules and lets them answer after the head."""

    continual: ContinualState

    def _take_head(self, info: StreamInfo, head: str | None, needed: bool) -> None:
        """Let the methods and the class mask answer after the head."""
        state = self.continual
        if not info.has_classes:  # no output is a class, so there is nothing to mask
            return
        try:
            path, layer = find_head(self, info.num_classes, head)
        except ValueError:
            if needed or head is not None:
                if not state.methods:
                    del self.continual  # as if nothing had been tried
                raise
            return
        state.head_path, state.mask = path, ClassMask(layer.out_features).to(layer.weight.device)
        layer.register_forward_hook(self._answer_of_methods)
        for network in enclosing(self, path):
            network.register_forward_hook(self._record_chosen)
        others = find_auxiliary_heads(self, path, layer.out_features)
        for other in others:
            other.register_forward_hook(self._answer_of_auxiliary)
        if others:
            state.auxiliary = True
            around(self, [layer, *others]).register_forward_hook(self._forget_answer)

    def add_method(self, name: str, part: MethodModule) -> None:
        """Carry a method's module, as ``continual.parts.<name>``; :meth:`configure_continual` comes first.

        Args:
            name: One word; the prefix of its state in checkpoints.
            part: Moved to the module's device, and from here on called by this module.

        Raises:
            ValueError: If there is a part of this name.
        """
        state = self.continual
        if name in state.parts:
            raise ValueError(f"the module has a method `{name}` already; use one at a time.")
        reference = next(self.parameters(), None) if state.head_path is None else self.continual_head.weight
        state.parts[name] = part if reference is None else part.to(reference.device)
        for shown, piece in part.known_as.items():
            if not hasattr(self, shown):
                self.__dict__[shown] = part.get_submodule(piece)  # a name only: its state is saved once

    @property
    def continual_head(self) -> nn.Linear:
        """The layer that makes the class logits.

        Raises:
            ValueError: If the module has none.
        """
        if self.continual.head_path is None:
            raise ValueError(f'no head was found in this {type(self).__name__}; name it with `head="..."`.')
        return cast(nn.Linear, self.get_submodule(self.continual.head_path))  # `find_head` lets it be read as one

    def head_rows(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """What some rows of the head are made of: trained parameters, with the rows or elements of each.

        Raises:
            ValueError: If a row depends on the parameters of other rows.
        """
        layer: Any = weight_layer(self.continual_head) or self.continual_head
        name, dim = layer.rows_in if isinstance(layer, NamedRows) else ("weight", 0)
        try:
            found = [(p, part == name and dim) for part in (name, "bias") for p in row_parameters(layer, part)]
        except ValueError as error:
            raise ValueError(
                f"the head `{self.continual.head_path}` cannot keep the rows of classes that are not trained now: "
                f"{error}; use a plain `nn.Linear` or `torch.nn.utils.parametrizations.weight_norm`, or train all rows "
                'with `train_mask="all"`.'
            ) from None
        for parameter, across in found:
            if parameter.requires_grad:
                elements = torch.zeros_like(parameter, dtype=torch.bool).index_fill_(1, rows, True) if across else rows
                yield parameter, elements

    def head_input(self, inputs: Any) -> Tensor:
        """``(B, D)`` features that reach the head when the module's ``forward`` is called with ``inputs``.

        Raises:
            ValueError: If there is no ``forward``, or it does not call the head.
        """
        try:
            with self.recorded(raw=True) as calls:
                call_with(self, inputs)
        except NotImplementedError as error:
            raise ValueError(
                f"`{type(self).__name__}` has no `forward`, through which features are read; define "
                "`forward(self, images)` to return the class logits."
            ) from error
        if not calls:
            raise ValueError(
                f"the head `{self.continual.head_path}` was not called by `{type(self).__name__}.forward`, so there "
                'are no features; name the layer that forward uses with `head="..."`.'
            )
        return calls[-1].features

    def watch_layer(self, name: str) -> None:
        """Record what a layer gives beside every call of the head from now on; see :class:`HeadCall`.

        Args:
            name: Its dotted path in this module.
        """
        self.get_submodule(name).register_forward_hook(partial(self._record_output, name))

    def _record_output(self, name: str, layer: nn.Module, args: Any, output: Any) -> None:
        """Forward hook of a watched layer."""
        if self.continual.calls is not None:
            self.continual.outputs[name] = output

    def recorded(self, raw: bool = False) -> AbstractContextManager[list[HeadCall]]:
        """Record the calls of the head within a ``with`` block, in the list that it gives.

        Args:
            raw: Nobody reads what the network answers.
        """
        return self.continual.recording(raw)

    def _answer_of_methods(self, head: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Forward hook of the head: what the methods answer, in as many columns as the head has, masked."""
        if "_unanswered" in head.__dict__:  # a prompted network asks for the feature of an image
            return output
        if output.ndim == 4 and is_map(head, output):
            return self._answer_of_map(head, args[0], output)
        if output.ndim == 3:
            return self._answer_of_tokens(args[0], output)
        state = self.continual
        masked: Tensor = state.mask(self._answered(args[0], output))
        if state.auxiliary and any(part.makes_logits for part in state.ordered_parts):
            state.answer = masked
        return masked

    def _answered(self, given: Tensor, own: Tensor) -> Tensor:
        """``(B, C_head)`` logits of the methods, from what the head was given and what it made of it."""
        given = given.flatten(1) if given.ndim > 2 else given
        self.continual.record(HeadCall(given, own))
        return self._answer_of_parts(given, own)

    def _answer_of_parts(self, given: Tensor, own: Tensor) -> Tensor:
        """The same, and no call of the head is recorded."""
        logits = own
        for part in self.continual.ordered_parts:
            logits = part.answer(self, given, logits)
        missing = own.shape[-1] - logits.shape[-1]
        return nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing else logits

    def _answer_of_map(self, head: nn.Module, given: Tensor, output: Tensor) -> Tensor:
        """As the others, for a convolution's ``(B, C_head, H, W)``."""
        own, mask = pooled(head, output), self.continual.mask
        logits = self._answered(pooled(head, given), own)
        if logits is own:  # nothing but the mask
            return mask(output.movedim(1, -1)).movedim(-1, 1)  # type: ignore[no-any-return]
        return mask(logits)[..., None, None].expand_as(output)  # type: ignore[no-any-return]

    def _answer_of_tokens(self, given: Tensor, own: Tensor) -> Tensor:
        """As the others, for every token, ``(B, L, C_head)``; the network around chooses one, as decoders do."""
        masked = own
        if not self.continual.raw:  # answers may be alike where features are not
            rows = self._answer_of_parts(given.flatten(0, 1), own.flatten(0, 1))
            masked = self.continual.mask(rows).unflatten(0, own.shape[:2])
        self.continual.tokens = TokenCall(given, own, masked)
        return masked

    def _record_chosen(self, network: nn.Module, args: Any, output: Any) -> None:
        """Forward hook of what holds the head: record the call of the head as one for the tokens that were chosen."""
        state = self.continual
        logits = None if state.tokens is None else find_logits(output, state.tokens.answers.shape[-1])
        if state.tokens is not None and logits is not None and logits.ndim == 2:
            if state.calls is not None:
                state.record(state.tokens.chosen(logits))
            state.tokens = None

    def _answer_of_auxiliary(self, head: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Forward hook of another head: its logits, masked; or the head's, where a method makes those.

        A distilled model asks it behind the head and answers with the mean of both; GoogLeNet asks it before, to train.
        """
        state = self.continual
        answer, state.answer = state.answer, None
        if answer is None:
            masked: Tensor = state.mask(output)
            return masked
        return answer + 0.0 * output.sum()  # DDP waits for its gradient

    def _forget_answer(self, *_: Any) -> None:
        """Forward hook of what holds all heads: the pass is over."""
        self.continual.answer = None
