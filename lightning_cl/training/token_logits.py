"""The logits that a language model answers for every token: the layer that makes them, and the call that did."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.datamodules.batch_form import BatchKeys, find_places, part_at
from lightning_cl.training import find_modules
from lightning_cl.training.evaluation_mode import evaluating

#: The label of a token that does not count, as in PyTorch's cross-entropy and in `transformers`.
_IGNORED = -100


def find_token_head(module: nn.Module, path: str | None = None) -> str:
    """The dotted path of the layer that makes the logits of all tokens.

    Looked for in this order: ``path``; what a model of ``transformers`` in ``module`` names as its output layer; the
    one ``Linear`` with an output for every word of the largest embedding.

    Raises:
        ValueError: If there is none, or several.
    """
    if path is not None:
        find_modules.part_at(module, path, "head")
        return path
    getters = [getattr(part, "get_output_embeddings", None) for part in module.modules()]
    named = [layer for layer in (get() for get in getters if callable(get)) if layer is not None]
    words = max((part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)), default=None)
    linear = [m for m in module.modules() if isinstance(m, nn.Linear) and m.out_features == words]
    paths: list[str] = [
        name for name, part in module.named_modules() if any(part is layer for layer in named or linear)
    ]
    if len(paths) == 1:
        return paths[0]
    found = f"{', '.join(paths)} could" if paths else f"no layer of this {type(module).__name__} was found to"
    raise ValueError(
        f'{found} make the logits of every token of a language model; name the one that does with `head="..."`.'
    )


def counted_tokens(batch: Any, shape: torch.Size, keys: BatchKeys | None = None) -> Tensor | None:
    """``(B, L)`` bool: tokens that count; ``None``: all.

    They are those whose label is not -100, where there is one for each token (labels that are the tokens themselves, as
    models of ``transformers`` take them, are answered one token before); else those of the ``attention_mask``, of
    which a network may have been given the first ``L`` tokens.

    Args:
        batch: As the step got it.
        shape: ``(B, L)`` of the answers.
        keys: Places of inputs and targets, if the user named them.

    Raises:
        ValueError: If there is a mask of another shape.
    """
    _, place = find_places(batch, keys)
    labels = None if place is None else part_at(batch, place)
    if isinstance(labels, Tensor) and labels.shape == shape:
        counted = labels != _IGNORED
        return torch.where(_are_tokens(labels, counted, batch, keys), F.pad(counted[:, 1:], (0, 1)), counted)
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor):
        return None
    cut = mask[:, : shape[-1]] if mask.ndim == 2 else mask
    if cut.shape != shape:
        raise ValueError(
            f"the network answered for tokens of the shape {tuple(shape)}, but the batch's `attention_mask` is "
            f"{tuple(mask.shape)}; give it a place for every token."
        )
    return cut != 0


def _are_tokens(labels: Tensor, counted: Tensor, batch: Any, keys: BatchKeys | None) -> Tensor:
    """Bool: whether an input of the batch holds the labels that count; nothing waits for the device."""
    inputs = [part_at(batch, place) for place in find_places(batch, keys)[0]]
    same = [(labels == part) | ~counted for part in inputs if isinstance(part, Tensor) and part.shape == labels.shape]
    return torch.stack([part.all() for part in same]).any() if same else labels.new_zeros((), dtype=torch.bool)


class TokenCalls:
    """Records the last call of a language model in a training step, and repeats it with other weights.

    A call is that of the outermost module around the head, so its arguments are the user's own, whatever they are.

    Args:
        module: A LightningModule.
        head: Dotted path of the layer that makes the logits.
    """

    def __init__(self, module: nn.Module, head: str) -> None:
        self.head = head
        self.logits: Tensor | None = None
        self._active, self._inside = False, 0
        self._given: tuple[str, tuple[Any, ...], dict[str, Any]] | None = None
        module.get_submodule(head).register_forward_hook(self._keep)
        parts = head.split(".")
        for name in (".".join(parts[:depth]) for depth in range(len(parts))):
            network = module.get_submodule(name)
            network.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True)
            network.register_forward_hook(self._leave)

    def start(self) -> None:
        """Record from here on."""
        self.logits, self._active, self._inside = None, True, 0

    def stop(self) -> None:
        """Record no more, and let go of what was recorded."""
        self.logits, self._active, self._given = None, False, None

    def again(self, module: nn.Module, weights: Mapping[str, Tensor]) -> Tensor:
        """The logits of the recorded call in eval mode, without gradient.

        Args:
            module: The LightningModule.
            weights: Parameters and buffers by name that stand in for its own.

        Raises:
            ValueError: If the head was called outside of any module around it.
        """
        if self._given is None:
            raise ValueError(
                f"`{self.head}` was called in `training_step` by itself, so its call cannot be repeated with other "
                "weights; call it within the module's `forward`, or within a network that holds it."
            )
        name, args, kwargs = self._given
        network, within = module.get_submodule(name), f"{name}." if name else ""
        known = {key.removeprefix(within): value for key, value in weights.items() if key.startswith(within)}
        with evaluating(module):
            torch.func.functional_call(network, known, args, kwargs)
        assert self.logits is not None
        return self.logits

    def _enter(self, name: str, network: nn.Module, args: Any, kwargs: Any) -> None:
        if self._active:
            if not self._inside:
                self._given = name, args, dict(kwargs)
            self._inside += 1

    def _leave(self, network: nn.Module, args: Any, output: Any) -> None:
        if self._active:
            self._inside -= 1

    def _keep(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        if self._active:
            self.logits = output
