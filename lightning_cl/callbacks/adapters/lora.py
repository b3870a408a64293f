"""LoRA alone: low-rank updates of a frozen network are trained, with nothing against forgetting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from torch import nn

from lightning_cl.callbacks.arguments import check_above, check_at_least, check_pattern
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn import adapters as blocks
from lightning_cl.nn.adapters import Adapters, Bank, block_linears, freeze_all_but, inject
from lightning_cl.nn.adapters.sites import ending, exactly
from lightning_cl.training import MethodModule


class AddedParts(MethodModule):
    """Adapters that are trained from the first step to the last."""

    def __init__(self, adapters: Adapters) -> None:
        super().__init__()
        self.adapters = adapters


def added_adapters(
    pl_module: Any,
    make: Callable[[nn.Module], Bank],
    at: str | None,
    usual: list[str],
    site: str,
    read: str | None = None,
) -> Adapters:
    """Adapters at the layers whose names end as ``at`` says, or at the usual ones; all else but the head is frozen.

    Raises:
        ValueError: If there is no such layer.
    """
    adapters = inject(pl_module, make, at=layer_pattern(pl_module, at, usual, site), site=site, read=read)
    freeze_all_but(pl_module, pl_module.continual.head_path, skip=("continual",))
    return adapters


def layer_pattern(pl_module: Any, at: str | None, usual: list[str], site: str) -> str:
    """A regular expression of the whole names of the layers whose names end as ``at`` says, or of the usual ones.

    Raises:
        ValueError: If there are no usual ones, and no ``at``.
    """
    if at is None and not usual:
        known = [name for name, layer in pl_module.named_modules() if isinstance(layer, nn.Linear)]
        raise ValueError(
            f"no place for {site} was found in the numbered blocks of this {type(pl_module).__name__}; its linear "
            f"layers are {', '.join(known[:6]) or 'missing'}: name the layers with `at`, a regular expression."
        )
    return exactly(usual) if at is None else ending(at)


def usual_linears(pl_module: Any) -> list[str]:
    """Names of the linear layers within numbered blocks, without the head."""
    return [name for name in block_linears(pl_module) if name != pl_module.continual.head_path]


def linear_only(layer: nn.Module, at: str | None, who: str) -> nn.Linear:
    """The layer that ``at`` names, if it is linear.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"`at={at!r}` names a {type(layer).__name__}; {who} goes to `nn.Linear` alone.")
    return layer


def linear_adapters(pl_module: Any, make: Callable[[nn.Linear], Bank], at: str | None, who: str) -> Adapters:
    """Adapters at the linear layers whose names end as ``at`` says, or within numbered blocks; all else is frozen.

    Args:
        pl_module: With a class head, which stays trained.
        make: The adapters of a layer.
        at: Regular expression; ``None``: the usual layers.
        who: The method, whose name in small letters is that of the places.

    Raises:
        ValueError: If there is no such layer, or one is not linear.
    """

    def checked(layer: nn.Module) -> Bank:
        return make(linear_only(layer, at, who))

    return added_adapters(pl_module, checked, at, usual_linears(pl_module), who.lower())


@dataclass(eq=False)
class LoRA(ContinualMethod):
    r"""Low-rank adaptation (LoRA; Hu et al., ICLR 2022, arXiv:2106.09685), without a continual method.

    Every chosen linear layer answers ``W x + alpha / rank * B A x``: ``A`` (``rank`` rows, uniform as a linear layer's)
    and ``B`` (zero, so that the first answers are the plain network's bit for bit) are trained through the whole
    stream, and the head; all else is frozen and in evaluation mode. A reference of parameter-efficient tuning, and a
    small trunk for methods that come behind it in the list of callbacks (``SLCA``, ``EWC``, ``LwF``). Needs neither
    task boundaries nor a memory; costs two thin products for each layer in a step. Works on any network with
    ``nn.Linear`` in numbered blocks: ViT, Eva, Swin and ConvNeXt of timm, Hugging Face, the MLPs of open_clip and
    torchvision, whose attention does not call its layers.

    Args:
        rank: ``r``, at least 1.
        alpha: What is added is scaled by ``alpha / rank``; above 0. Twice the rank is usual.
        at: Regular expression of the ends of layers' names, such as ``r"attn\.qkv"`` or ``r"(query|value)"``;
            ``None``: every ``nn.Linear`` within numbered blocks.

    Raises:
        ValueError: If a number is out of its range or ``at`` no regular expression; when attached, if no layer has
            such a name, or one that has is no ``nn.Linear``.
    """

    state_key: ClassVar[str] = "lightning_cl.LoRA"
    needs_forward: ClassVar[bool] = False
    adapts_backbone: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"rank": 2, "alpha": 4.0}

    rank: int = 8
    alpha: float = 16.0
    at: str | None = None
    _: KW_ONLY
    train_mask: TrainMask = "task"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "rank")
        check_above(self, 0, "alpha")
        check_pattern(self, "at")

    def build(self, pl_module: Any, info: Any) -> AddedParts:
        """``A`` and ``B`` for every chosen layer."""

        def make(layer: nn.Linear) -> Bank:
            return blocks.LoRA(1, layer.in_features, layer.out_features, self.rank, self.alpha / self.rank)

        return AddedParts(linear_adapters(pl_module, make, self.at, "LoRA"))
