"""Put adapters at the layers of a live network, without wrapping a layer or renaming a parameter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.adapters.banks import Bank, Slots
from lightning_cl.nn.extension import extend
from lightning_cl.nn.weights import key_of

#: Slots of one pass through the network: one, several that are added up, or ``None``, the network without adapters.
Path = int | Sequence[int] | None


class Adapters(nn.Module):
    """The banks of one kind at all their places, and which of their slots answer; made by :func:`inject`.

    Register it in the module that is trained: the adapted network does not hold it.

    Args:
        banks: By the names of the layers.
    """

    def __init__(self, banks: dict[str, Bank]) -> None:
        super().__init__()
        #: Of the layers.
        self.names = tuple(banks)
        self.banks = nn.ModuleDict({key_of(name): bank for name, bank in banks.items()})
        self._trained: tuple[Slots | None, ...] = ((0,),)
        self._evaluated: tuple[Slots | None, ...] | None = None
        #: Rows of the batch that the network repeated last; see :mod:`lightning_cl.nn.adapters.paths`.
        self.folded_rows: int | None = None

    @property
    def paths(self) -> tuple[Slots | None, ...]:
        """The slots that answer in the present mode."""
        return self._trained if self.training or self._evaluated is None else self._evaluated

    def select(self, *paths: Path, evaluated: Sequence[Path] | None = None) -> None:
        """Let these slots answer from now on; several paths for a batch that :func:`folded` has repeated.

        Args:
            paths: One or more.
            evaluated: Those of evaluation mode, if it has others.

        Raises:
            ValueError: If a slot does not exist, or paths add up different numbers of slots.
        """
        self._trained = self._checked(paths)
        self._evaluated = None if evaluated is None else self._checked(evaluated)

    def _checked(self, paths: Sequence[Path]) -> tuple[Slots | None, ...]:
        slots = min((bank.slots for bank in self), default=1)
        chosen = tuple(None if p is None else (p,) if isinstance(p, int) else tuple(p) for p in paths)
        wrong = [i for path in chosen if path is not None for i in path if not 0 <= i < slots]
        if wrong:
            raise ValueError(
                f"there are no slots {wrong}: the banks have {slots}, 0 to {slots - 1}; choose among them."
            )
        if not chosen or len({len(path) for path in chosen if path is not None}) > 1:
            raise ValueError(f"the paths are {tuple(paths)}; give at least one, and each the same number of slots.")
        return chosen

    @contextmanager
    def selected(self, *paths: Path) -> Iterator[None]:
        """:meth:`select` for the length of a block."""
        before = self._trained, self._evaluated
        self.select(*paths)
        try:
            yield
        finally:
            self._trained, self._evaluated = before

    def __iter__(self) -> Iterator[Bank]:
        """The banks, in the order of the layers."""
        return iter(self.banks.values())  # type: ignore[arg-type]

    def bank(self, name: str) -> Bank:
        """The bank of a layer."""
        found = self.banks[key_of(name)]
        assert isinstance(found, Bank)
        return found

    def copy_slot(self, source: int, target: int) -> None:
        """Copy a slot of every bank into another one."""
        for bank in self:
            bank.copy_slot(source, target)

    def learn(self, *slots: int) -> None:
        """Only these slots get a gradient from now on."""
        for bank in self:
            bank.learning = slots

    def protected(self, trained: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter with the slots that must not move while those of ``trained`` learn."""
        return (pair for bank in self for pair in bank.protected(trained))

    def adapted(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """The output of a layer with what its bank adds."""
        if all(path is None for path in self.paths):
            return y
        bank, paths = self.bank(name), self.paths
        if len(paths) > 1 and y.shape[0] % len(paths):  # not `len(y)`, which a graph would take for a constant
            raise ValueError(f"a batch of {len(y)} does not hold {len(paths)} paths; pass it through `folded`.")
        real = [path if path is not None else next(p for p in paths if p is not None) for path in paths]
        out = bank.adapted(x, y, real)
        if None in paths:
            shape = (len(paths), -1)
            parts = zip(paths, y.unflatten(0, shape), out.unflatten(0, shape), strict=True)
            out = torch.cat([plain if path is None else new for path, plain, new in parts])
        return out


def named_parts(module: nn.Module, pattern: str) -> dict[str, nn.Module]:
    """The parts of a module whose whole dotted names a regular expression matches."""
    return {name: part for name, part in module.named_modules() if re.fullmatch(pattern, name)}


def inject(
    module: nn.Module,
    make: Callable[[nn.Module], Bank],
    at: str,
    site: str = "adapter",
    read: str | None = None,
) -> Adapters:
    r"""Change the outputs of some layers of a live network by a bank each; names of its parameters stay.

    LoRA of timm's attention: ``at=r"blocks\.\d+\.attn\.qkv"``. An adapter beside the MLP of timm's blocks, which reads
    what the MLP's norm reads: ``at=r"blocks\.\d+\.drop_path2", read="norm2"``.

    Args:
        module: The network; batches come first in the tensors of these layers.
        make: The bank of a layer; it is moved to the layer's device and dtype.
        at: Regular expression of the whole names of the layers whose outputs are changed.
        site: Name of this kind of adapters; a layer may have several kinds, one of each.
        read: A neighbour of the layer whose input the adapter reads; ``None``: the layer's own input.

    Returns:
        The banks; the first slot answers until :meth:`Adapters.select`.

    Raises:
        ValueError: If no layer has such a name, a neighbour is missing, or a layer has adapters of this site already.
    """
    found = named_parts(module, at)
    if not found:
        known = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
        raise ValueError(f"no layer's name matches {at!r}; linear layers are {', '.join(known[:4]) or 'missing'}.")
    readers = {name: _neighbour(module, name, read) for name in found}
    for name, layer in found.items():
        if site in layer.__dict__.get("_adapted_by", {}):
            raise ValueError(
                f"the layer `{name}` has adapters of the site {site!r} already; give each method that adapts it its "
                "own `site`, or use one of them."
            )
    banks = {name: make(layer).to(_like(layer, module)) for name, layer in found.items()}
    adapters = Adapters(banks)
    for name, layer in found.items():
        reader = readers[name]
        extend(layer, AdaptedLayer)
        layer.__dict__.setdefault("_adapted_by", {})[site] = (adapters, name, reader)
        if reader is not None:
            extend(reader, ReadLayer)
            reader.__dict__.setdefault("_read_for", {})[site, name] = None
    return adapters


class AdaptedLayer(nn.Module):
    """Mixin for a live layer: its output passes through the adapters of every site."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer, then its adapters."""
        output = super().forward(*args, **kwargs)
        for site, (adapters, name, reader) in self.__dict__["_adapted_by"].items():
            x = (*args, *kwargs.values())[0]
            if reader is not None:
                x, reader.__dict__["_read_for"][site, name] = reader.__dict__["_read_for"][site, name], None
            output = adapters.adapted(name, x, output)
        return output


class ReadLayer(nn.Module):
    """Mixin for a live layer whose input an adapter reads."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the layer, and keep its input until the adapter has read it."""
        self.__dict__["_read_for"] = dict.fromkeys(self.__dict__["_read_for"], x)
        return super().forward(x, *args, **kwargs)


def _neighbour(module: nn.Module, name: str, read: str | None) -> nn.Module | None:
    if read is None:
        return None
    parent = module.get_submodule(name.rpartition(".")[0])
    if read not in dict(parent.named_children()):
        known = ", ".join(child for child, _ in parent.named_children())
        raise ValueError(f"`{name}` has no neighbour `{read}` to read from; its neighbours are {known}.")
    return parent.get_submodule(read)


def _like(layer: nn.Module, module: nn.Module) -> Tensor:
    """A tensor whose device and dtype a layer's adapters share."""
    return next((p for part in (layer, module) for p in part.parameters()), torch.empty(0)).detach()
