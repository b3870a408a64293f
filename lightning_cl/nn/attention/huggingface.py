"""Hugging Face's transformers: image and text encoders, and decoders that classify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeGuard

import torch
from torch import Tensor, nn

from lightning_cl.nn.attention.family import AttentionFamily, Networks
from lightning_cl.nn.attention.registry import register_attention

_OTHER_METHODS = "use a method that works on any network (replay, class means, distillation, regularisation)"
_NORMS = ("layernorm", "norm", "layer_norm", "final_layer_norm", "final_norm", "ln_f")


@register_attention
class HuggingFace(AttentionFamily):
    """Any ``PreTrainedModel`` with one stack of layers (ViT, DINOv2, CLIP, BERT, Llama), with ``sdpa`` attention.

    The feature is what the head is given (of a text decoder at the last token that is no padding), where it is as wide
    as the network; otherwise the first token behind the last norm, as in DINOv2, whose head reads two tokens.
    """

    name: ClassVar[str] = "Hugging Face transformers"
    networks: ClassVar[Networks] = ("transformers.modeling_utils.PreTrainedModel",)

    def blocks(self, network: Any) -> Sequence[nn.Module]:
        """The layers of its one stack.

        Raises:
            ValueError: If there are several stacks, or none, or one of stages.
        """
        stacks, kind = _stacks(network), type(network).__name__
        if len(stacks) != 1:
            raise ValueError(
                f"the {kind} has {len(stacks)} stacks of layers ({', '.join(stacks) or 'none'}), but prompts need one; "
                f'name a part with one stack, for example `backbone="net.vision_model"`, or {_OTHER_METHODS}.'
            )
        ((path, layers),) = stacks.items()
        if any(_attends(part) for layer in layers for part in layer.modules()):
            raise ValueError(
                f"the layers of the {kind} at `{path}` are stacks themselves, of other widths or shared, in which "
                f"prompts have no place; {_OTHER_METHODS}."
            )
        return list(layers)

    def width(self, network: Any) -> int:
        """The ``hidden_size`` of the configuration of what holds the stack.

        Raises:
            ValueError: If there is none, as in a convolutional network.
        """
        sizes = (getattr(getattr(part, "config", None), "hidden_size", None) for part in network.modules())
        found = next((int(size) for size in sizes if size is not None), None)
        if found is None:
            raise ValueError(
                f"the {type(network).__name__} has no `hidden_size` in its configuration, so it is no transformer of "
                f"one width, which prompts need; {_OTHER_METHODS}."
            )
        return found

    def norm(self, network: Any) -> nn.Module | None:
        """The norm beside the stack, or beside what holds it."""
        known = (getattr(part, name) for part in _around(network) for name in _NORMS if hasattr(part, name))
        return next(known, None)

    def feature(self, network: Any, value: Any, inputs: Mapping[str, Any]) -> Tensor | None:
        """What the head is given; of a decoder's ``(B, N, D)`` the last token that is no padding."""
        value = getattr(value, "last_hidden_state", value) if self._decodes(network) else value
        if isinstance(value, Tensor) and value.ndim == 3 and self._decodes(network):
            value = value[torch.arange(value.shape[0], device=value.device), _last_token(network, value, inputs)]
        return super().feature(network, value, inputs)

    def trained_parts(self, network: Any, head: nn.Module) -> Sequence[str]:
        """All but the stack and what belongs to it, if the head is in the network."""
        if not super().trained_parts(network, head):
            return ()
        body = next(iter(_stacks(network))).partition(".")[0]
        return [name for name, _ in network.named_children() if name != body]

    def prepare(self, network: Any) -> None:
        """Choose torch's attention in the model that holds the stack."""
        holders = [part for part in _around(network) if hasattr(part, "set_attn_implementation")]
        holders[0].set_attn_implementation("sdpa")

    def beside(self, given: dict[str, Any], own: int, tokens: int) -> dict[str, Any]:
        """Rotary positions of every token (ModernBERT): those in front are turned by an angle of 0."""
        turning = given.get("position_embeddings")
        if not tokens or not isinstance(turning, tuple) or any(angles.shape[-2] != own for angles in turning):
            return given  # DINOv3's are of its patches alone
        pairs = zip(turning, (1.0, 0.0), strict=True)  # cosines and sines
        longer = tuple(nn.functional.pad(angles, (0, 0, tokens, 0), value=unturned) for angles, unturned in pairs)
        return {**given, "position_embeddings": longer}

    def joins(self, network: Any) -> bool:
        """Not before the words of a decoder: tokens there never see them."""
        return not self._decodes(network)

    def _decodes(self, network: Any) -> bool:
        parts = (part for block in self.blocks(network) for part in block.modules())
        return any(getattr(part, "is_causal", False) is True for part in parts)


def _stacks(network: nn.Module) -> dict[str, nn.ModuleList]:
    """Lists of layers with attention that are not within another one, by name."""
    found: dict[str, nn.ModuleList] = {}
    for name, part in network.named_modules():
        if _attends(part) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = part
    return found


def _attends(part: nn.Module) -> TypeGuard[nn.ModuleList]:
    """Whether it is a list of layers with attention."""
    return isinstance(part, nn.ModuleList) and any("ttention" in type(p).__name__ for p in part.modules())


def _around(network: nn.Module) -> list[Any]:
    """What holds the stack of layers, from the inside out."""
    parts = next(iter(_stacks(network))).split(".")
    return [network.get_submodule(".".join(parts[:end])) for end in range(len(parts) - 1, -1, -1)]


def _last_token(network: Any, value: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    """``(B,)`` place of the last token that is no padding; the last of all where padding is not known."""
    pad, ids = network.config.get_text_config().pad_token_id, inputs.get("input_ids")
    if pad is None or ids is None:
        return torch.full((value.shape[0],), value.shape[1] - 1, device=value.device)
    places = torch.arange(ids.shape[-1], device=value.device)
    last: Tensor = (places * (ids != pad)).argmax(-1)
    return last
