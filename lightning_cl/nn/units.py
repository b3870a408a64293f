"""Find the hidden units of a network that only one layer reads, and start dormant ones anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_cl.nn.eager import uncompiled
from lightning_cl.nn.input_grams import has_input_rows
from lightning_cl.nn.plasticity import by_unit
from lightning_cl.nn.unit_outputs import layer_input
from lightning_cl.nn.weights import clear_moments


class UnitLink(NamedTuple):
    """Units that only one layer reads.

    Attributes:
        maker: Name of the layer with a row of weights for each unit.
        reader: Name of the layer whose columns read them, behind activation and norm.
        columns: Of a unit; more than one where a map is flattened.
    """

    maker: str
    reader: str
    columns: int


def makers(module: nn.Module) -> dict[str, nn.Module]:
    """The linear layers and convolutions without groups of a network, but not of methods, by name."""
    return {n: m for n, m in module.named_modules() if has_input_rows(m) and not n.startswith("continual")}


def unit_links(module: nn.Module, run: Callable[[Mapping[str, Tensor]], Tensor]) -> list[UnitLink]:
    """The units of a network that can be started anew, layer by layer.

    A pair of layers is one if, with the columns of a unit at zero, what makes this unit has no effect on the network's
    answer, bit for bit: tried for all units together and for the first and the last alone. So units that are normalised
    together or that a residual connection passes on are left out, whatever the network is written in.

    Args:
        module: In eval mode; see :func:`makers` for the layers that are looked at.
        run: The network's answer, called with some weights by name in the place of its own.
    """
    layers, order = makers(module), list[str]()
    own = {name for name, p in module.named_parameters() if p.requires_grad}
    hooks = [layer.register_forward_pre_hook(partial(_note, order, name)) for name, layer in layers.items()]
    try:
        with uncompiled():
            run({})
    finally:
        for hook in hooks:
            hook.remove()
    once = [n for n in order if order.count(n) == 1 and f"{n}.weight" in own]
    shapes = {n: module.get_parameter(f"{n}.weight").shape for n in once}
    links = list[UnitLink]()
    for place, maker in enumerate(once):
        for reader in once[place + 1 :]:
            units, inside = shapes[maker][0], shapes[reader][1]
            link = UnitLink(maker, reader, inside // units)
            if inside % units == 0 and _is_link(module, run, link, units):
                links.append(link)
                break
    return links


def _note(order: list[str], name: str, layer: nn.Module, inputs: Any) -> None:
    order.append(name)


@torch.no_grad()
def _is_link(module: nn.Module, run: Callable[[Mapping[str, Tensor]], Tensor], link: UnitLink, units: int) -> bool:
    made, read = (module.get_parameter(f"{name}.weight").detach() for name in (link.maker, link.reader))
    if torch.equal(run({f"{link.maker}.weight": made + 1}), run({})):
        return False  # a layer without effect says nothing
    for some in (torch.arange(units), torch.tensor([0]), torch.tensor([units - 1])):
        changed, deaf = made.clone(), read.clone()
        changed[some] += 1
        deaf[:, columns_of(some, link.columns)] = 0
        weights = {f"{link.reader}.weight": deaf}
        if not torch.equal(run(weights), run({**weights, f"{link.maker}.weight": changed})):
            return False
    return True


def columns_of(units: Tensor, each: int) -> Tensor:
    """``(n * each,)`` columns of ``(n,)`` units that have ``each`` neighbouring ones."""
    return (units[:, None] * each + torch.arange(each, device=units.device)).flatten()


def unit_activity(module: nn.Module, links: list[UnitLink], run: Callable[[], Any]) -> list[Tensor]:
    """``(U,)`` sums over samples (tokens, pixels) of the mean ``|input|`` of each link's reader, and last the count.

    Args:
        module: Whose layers they are.
        links: See :func:`unit_links`.
        run: Makes a pass over the samples.
    """
    with ExitStack() as stack:
        inputs = [stack.enter_context(layer_input(module.get_submodule(link.reader))) for link in links]
        run()
    sums = list[Tensor]()
    for link, calls in zip(links, inputs, strict=True):
        values = by_unit(calls[-1]).abs().detach().double()
        grouped = values.reshape(len(values), -1, link.columns).mean(2)
        sums.append(torch.cat([grouped.sum(0), grouped.new_tensor([len(grouped)])]))
    return sums


@torch.no_grad()
def restart_units_(
    module: nn.Module,
    link: UnitLink,
    units: Tensor,
    generator: torch.Generator,
    states: Mapping[Tensor, Mapping[str, Any]],
) -> None:
    """Draw the incoming weights of units anew and set the outgoing ones to zero, in place, with their moments.

    Incoming weights and biases are uniform within ``1 / sqrt(fan_in)``, as PyTorch draws them.

    Args:
        module: Whose layers they are.
        link: See :func:`unit_links`.
        units: ``(n,)`` which.
        generator: On the CPU; the draws do not depend on which units they are for.
        states: Of an optimiser, by parameter: tensors of a parameter's shape become 0 where it changes.
    """
    maker, reader = module.get_submodule(link.maker), module.get_submodule(link.reader)
    weight, columns = maker.weight, columns_of(units, link.columns)
    assert isinstance(weight, Tensor)
    assert isinstance(reader.weight, Tensor)
    bound = 1 / math.sqrt(weight[0].numel())
    for part in (weight, maker.bias):
        if isinstance(part, Tensor):
            drawn = torch.empty(part.shape).uniform_(-bound, bound, generator=generator)
            part[units] = drawn.to(part)[units]
    reader.weight[:, columns] = 0
    for part, places in ((weight, (units,)), (maker.bias, (units,)), (reader.weight, (slice(None), columns))):
        if isinstance(part, Tensor):
            clear_moments(states, part, places)
