"""How deep every weight of a network lies, between 0 at the first block and 1 at the last."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def block_list(module: nn.Module) -> str | None:
    """Path of the ``nn.ModuleList`` or ``nn.Sequential`` that holds most of the parameters, the outermost of equals.

    Returns:
        ``None`` where none has two children with parameters and half of the module's parameters.
    """
    best: str | None = None
    most = sum(p.numel() for p in module.parameters()) // 2
    for path, part in module.named_modules():
        if isinstance(part, (nn.ModuleList, nn.Sequential)):
            sizes = [sum(p.numel() for p in child.parameters()) for child in part.children()]
            if sum(size > 0 for size in sizes) > 1 and sum(sizes) > most:
                best, most = path, sum(sizes)
    return best


def depths(module: nn.Module, names: Sequence[str], blocks: str | None) -> dict[str, float | None]:
    """``(l - 1) / (L - 1)`` of the block ``l = 1 ... L`` that each named parameter is in; ``None``: in no block.

    Args:
        module: The network.
        names: Of parameters, in the order of the network.
        blocks: Dotted path of the list of blocks; ``None``: every layer with parameters of its own is a block.

    Raises:
        ValueError: If there is no such list.
    """
    if blocks is None:
        owner = {name: name.rpartition(".")[0] for name in names}
        order = list(dict.fromkeys(owner.values()))
    else:
        known = dict(module.named_modules())
        if blocks not in known or not any(True for _ in known[blocks].children()):
            raise ValueError(
                f"`blocks={blocks!r}` is no list of blocks in {type(module).__name__}; give the dotted path of an "
                '`nn.ModuleList` or `nn.Sequential`, for example "net.blocks".'
            )
        inside = [name for name in names if name.startswith(f"{blocks}.")]
        owner = {name: ".".join(name.split(".")[: blocks.count(".") + 2]) for name in inside}
        order = [path for n, _ in known[blocks].named_children() if (path := f"{blocks}.{n}") in owner.values()]
    last = max(len(order) - 1, 1)
    place = {path: number / last if len(order) > 1 else 1.0 for number, path in enumerate(order)}
    return {name: place[owner[name]] if name in owner else None for name in names}
