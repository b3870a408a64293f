"""Run several paths through an adapted network in one batch: one call, or every call from here on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.adapters.injection import Adapters, Path
from lightning_cl.nn.extension import extend


def folded(adapters: Adapters, paths: Sequence[Path], inputs: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
    """One pass through ``network`` for several paths: ``(B, ...)`` inputs to ``(P, B, ...)`` outputs.

    Args:
        adapters: Whose slots the paths choose.
        paths: ``P`` of them; ``None`` is the network without adapters.
        inputs: Repeated ``P`` times along the batch.
        network: Anything that holds the adapted layers, but no network of :func:`fold_paths`, which repeats its input
            itself; what it answers for a row may not depend on other rows.
    """
    with adapters.selected(*paths):
        out = network(_repeated(inputs, len(paths)))
    return out.view(len(paths), len(inputs), *out.shape[1:])


def _repeated(x: Tensor, times: int) -> Tensor:
    return x.repeat(times, *(1,) * (x.ndim - 1))


class FoldedNetwork(nn.Module):
    """Mixin for a live network: its input is repeated for every selected path of its adapters."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the network on ``(P * B, ...)`` rows, path after path."""
        adapters: Adapters = self.__dict__["_folds_for"]
        if len(adapters.paths) > 1:
            if not torch.compiler.is_compiling():  # a graph keeps no notes
                adapters.folded_rows = x.shape[0]
            x = _repeated(x, len(adapters.paths))
        return super().forward(x, *args, **kwargs)


def fold_paths(network: nn.Module, adapters: Adapters) -> None:
    """Let ``network`` answer for all selected paths from here on; :func:`unfolded` takes its features apart."""
    extend(network, FoldedNetwork)
    network.__dict__["_folds_for"] = adapters


def unfolded(adapters: Adapters, features: Tensor) -> Tensor:
    """``(P * B, D)`` features to ``(B, P * D)``: those of a sample's paths side by side.

    Raises:
        ValueError: If the network was not called as a module since, so that its input was not repeated.
    """
    paths = len(adapters.paths)
    if paths == 1:
        return features
    if torch.compiler.is_compiling():
        return beside(adapters, features)
    rows, adapters.folded_rows = adapters.folded_rows, None
    if rows is None or rows * paths != len(features):
        raise ValueError(
            f"{len(features)} features reached the head for {paths} paths through the backbone, whose "
            "input was not repeated for them; call the backbone as a module, `self.backbone(images)`, once for a batch."
        )
    return beside(adapters, features)


def beside(adapters: Adapters, features: Tensor) -> Tensor:
    """``(P * B, D)`` features of ``P`` paths, one path after the other, to ``(B, P * D)``."""
    return torch.cat(list(features.unflatten(0, (len(adapters.paths), -1))), dim=1)


def behind(adapters: Adapters, features: Tensor) -> Tensor:
    """The reverse of :func:`beside`, as if the network had been called."""
    paths = len(adapters.paths)
    adapters.folded_rows = len(features) if paths > 1 else None
    return torch.cat(list(features.chunk(paths, dim=1)))
