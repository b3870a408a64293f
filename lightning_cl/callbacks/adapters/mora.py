"""MoRA: experts of rank one beside linear layers, which choose themselves by their own input direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from lightning_cl.callbacks.adapters.linear_layers import layer_pattern, linear_only, usual_linears
from lightning_cl.callbacks.adapters.task_adapters import SummedAdapters
from lightning_cl.callbacks.arguments import above, at_least, pattern
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.adapters import Adapters, RankOne, freeze_all_but, inject
from lightning_cl.nn.adapters.injection import named_parts
from lightning_cl.nn.adapters.sites import exactly
from lightning_cl.nn.transformer_layers import fused_parts


class RankOneExperts(SummedAdapters):
    """The experts of all tasks so far; those of the current one learn.

    Args:
        groups: One, or one for each of the parts of fused projections beside it.
    """

    def __init__(self, groups: list[Adapters]) -> None:
        super().__init__(groups[0])
        self.parts = nn.ModuleList(groups[1:])


@dataclass(eq=False)
class MoRA(TaskwiseMethod):
    r"""Self-activated mixture of rank-1 adapters (MoRA, now MoRAM; Lu et al., arXiv:2506.21035).

    Every chosen linear layer answers ``W x + sum_i w_i (a_i x) b_i`` for each token. Each task brings ``rank`` experts
    ``(a_i, b_i)`` to a layer (``a`` uniform as a linear layer's, ``b`` zero), which learn while all older ones stay.
    With ``u = A x / |A x|`` over the experts of all tasks so far, the ``topk`` largest ``u_i`` answer, ``w = softmax(u
    / temperature)`` of them; when evaluated, those with ``u_i < threshold`` do not, and the rest is not scaled up. A
    fused query, key and value projection (``qkv``) has experts for each of its three parts. Defaults are those of the
    released scripts for X-TAIL (AdamW, 5e-4, on both towers of CLIP with a loss in both directions); with the class
    head of one network, as here, nothing is published. Needs the start of a task; keeps ``T rank (D_in + D_out)``
    numbers a layer and no sample; what a layer adds costs two thin products that grow with the tasks, and a choice for
    each token. Works on any network with ``nn.Linear`` in numbered blocks, as ``LoRA``.

    Args:
        rank: Experts of a task in a layer, at least 1.
        topk: How many answer to a token; 2 at least do where there are as many.
        temperature: ``tau``, above 0.
        threshold: ``delta``, least ``u_i`` when evaluated, at most 1.
        at: Regular expression of the ends of layers' names, such as ``r"attn\.qkv"``; ``None``: every ``nn.Linear``
            within numbered blocks.

    Raises:
        ValueError: If a number is out of its range or ``at`` no regular expression; when attached, if no layer has
            such a name, or one that has is no ``nn.Linear``.
    """

    state_key: ClassVar[str] = "lightning_cl.MoRA"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    adapts_backbone: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"rank": 2, "topk": 3}

    rank: int = at_least(1, default=16)
    topk: int = at_least(1, default=16)
    temperature: float = above(0, default=0.01)
    threshold: float = 0.2
    at: str | None = pattern(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.threshold <= 1:
            raise ValueError(f"`threshold` is {self.threshold}; give at most 1, the largest that a cosine can be.")

    def build(self, pl_module: Any, info: Any) -> RankOneExperts:
        """Experts of no weight for every chosen layer, for as many tasks as the stream has."""
        pattern = layer_pattern(pl_module, self.at, usual_linears(pl_module), "mora")
        layers = named_parts(pl_module, pattern)
        linears = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear)}
        fused = [name for name, layer in linears.items() if fused_parts(f"{name}.weight", layer.weight) == 3]
        plain = [name for name in layers if name not in fused]
        places = [(exactly(plain) if plain else pattern, "mora", 0, 1)] if plain or not fused else []
        places += [(exactly(fused), f"mora{part}", part, 3) for part in range(3) if fused]
        groups = [self._experts(pl_module, info.num_tasks, *place) for place in places]
        freeze_all_but(pl_module, pl_module.continual.head_path, skip=("continual",))
        return RankOneExperts(groups)

    def _experts(self, pl_module: Any, tasks: int, at: str, site: str, part: int, parts: int) -> Adapters:
        """Experts for one of the equal parts of some layers' outputs."""

        def make(layer: nn.Module) -> RankOne:
            layer = linear_only(layer, self.at, "MoRA")
            width, options = layer.out_features // parts, (self.topk, self.temperature, self.threshold)
            return RankOne(tasks, layer.in_features, width, self.rank, *options, start=part * width)

        return inject(pl_module, make, at=at, site=site)
