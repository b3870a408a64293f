"""Let a layer compute with other tensors than its own for the length of a call; its parameters keep their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.extension import extend

#: Layers that are mostly weights between units.
WEIGHT_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
#: Norms whose statistics are of a sample.
SAMPLE_NORMS = (nn.LayerNorm, nn.GroupNorm)


class Substitutes(nn.Module):
    """Says what layers compute with; base of what :func:`substitute` takes.

    Attributes:
        who: What it is called in errors.
        branches: What answers in this pass, each for an equal part of the rows of every input; mostly nothing special.
        branch: Which of them is asked for.
    """

    who: str = "another method"
    branches: Sequence[int] = ()
    branch: int | None = None

    @contextmanager
    def answering(self, branches: Sequence[int]) -> Iterator[None]:
        """Let these answer within the block, the first for the first part of the rows, and so on; at least one."""
        before = self.branches, self.branch
        self.branches, self.branch = branches, branches[0]
        try:
            yield
        finally:
            self.branches, self.branch = before

    def substitutes(self, name: str, layer: nn.Module) -> Mapping[str, Any]:
        """Attributes of the layer during this call, such as ``weight``; the others are its own."""
        return {}

    def changed(self, name: str, layer: nn.Module, output: Tensor) -> Tensor:
        """What the layer answers in the place of its output."""
        return output


class SubstitutedLayer(nn.Module):
    """Mixin for a live layer; :func:`substitute` sets it up."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As before, with the attributes that stand in for its own; each of several branches for its own rows."""
        source, name = self.__dict__["_computes_with"]
        if len(source.branches) < 2:
            return self._computed(source, name, *args, **kwargs)
        answers = []
        for branch, rows in zip(source.branches, _equal_parts(args[0], len(source.branches), name), strict=True):
            with source.answering((branch,)):
                answers.append(self._computed(source, name, rows, *args[1:], **kwargs))
        return torch.cat(answers)

    def _computed(self, source: Substitutes, name: str, *args: Any, **kwargs: Any) -> Any:
        given = source.substitutes(name, self)
        own = {key: self.__dict__[key] for key in given if key in self.__dict__}
        self.__dict__.update(given)  # found before the parameters of the same names
        try:
            return source.changed(name, self, super().forward(*args, **kwargs))
        finally:
            for key in given:
                del self.__dict__[key]
            self.__dict__.update(own)


def _equal_parts(rows: Tensor, count: int, name: str) -> Sequence[Tensor]:
    if len(rows) % count:
        raise ValueError(
            f"the layer `{name}` was given {len(rows)} rows, which are no equal parts for {count} tasks; its first "
            "dimension must be that of the samples."
        )
    return rows.chunk(count)


def substitute(layer: nn.Module, source: Substitutes, name: str) -> None:
    """From here on ``layer`` computes with what ``source`` says, each time that it is called as a module.

    Args:
        layer: Any live layer; its parameters, their names and its checkpoints stay.
        source: Asked at every call. The layer does not hold it: register it where it is trained and saved.
        name: How the layer is called to the source.

    Raises:
        ValueError: If another source says so already.
    """
    known = layer.__dict__.get("_computes_with")
    if known is not None and known[0] is not source:
        raise ValueError(
            f"the layer `{name}` computes with the weights of {known[0].who} already, so {source.who} cannot replace "
            "them, too; use one of them."
        )
    extend(layer, SubstitutedLayer)
    layer.__dict__["_computes_with"] = (source, name)


def weight_layers(module: nn.Module, head: nn.Module | None = None) -> dict[str, nn.Module]:
    """Linear layers and convolutions with a trained weight of their own, by name.

    Without the head, and without the output layer of ``nn.MultiheadAttention``, which is never called as a module.
    """
    uncalled = {id(m.out_proj) for m in module.modules() if isinstance(m, nn.MultiheadAttention)}
    found = {n: m for n, m in module.named_modules() if isinstance(m, WEIGHT_LAYERS) and m is not head}
    return {n: m for n, m in found.items() if id(m) not in uncalled and _trains_weight(m)}


def _trains_weight(layer: nn.Module) -> bool:
    weight = dict(layer.named_parameters(recurse=False)).get("weight")
    return weight is not None and weight.requires_grad


def batch_norms(module: nn.Module) -> dict[str, nn.Module]:
    """Batch norms with running statistics, by name."""
    return {n: m for n, m in module.named_modules() if isinstance(m, NORMS) and m.running_mean is not None}


def all_norms(module: nn.Module) -> dict[str, nn.Module]:
    """Batch norms with running statistics, and layer and group norms with a weight, by name."""
    of_samples = {n: m for n, m in module.named_modules() if isinstance(m, SAMPLE_NORMS) and m.weight is not None}
    return batch_norms(module) | of_samples


def convolutions(module: Any, skip_pointwise: bool, who: str) -> dict[str, Any]:
    """The 2-d convolutions of a module besides its head, by name, or those of more than one pixel.

    Raises:
        ValueError: If there is none.
    """
    every = {n: m for n, m in module.named_modules() if isinstance(m, nn.Conv2d) and m is not module.continual_head}
    found = {n: m for n, m in every.items() if not skip_pointwise or m.kernel_size != (1, 1)}
    if not found:
        raise ValueError(
            f"{type(module).__name__} has {len(every)} convolutions besides its head, none of them `nn.Conv2d` of more "
            f"than one pixel, whose channels {who} could re-map; use a convolutional network, or another method (or "
            "`skip_pointwise=False`, if there are some of one pixel)."
        )
    return found
