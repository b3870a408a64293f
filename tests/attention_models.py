"""Tiny float64 networks of every family of attention, with random weights; shared by tests of prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import (
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from tiny import images, shaken
from torch import Tensor, nn

WIDTH, DEPTH, HEADS, CLASSES = 48, 3, 4, 6
TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "num_classes": CLASSES}
_HF = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": 64,
    "num_labels": CLASSES,
}
_HF_IMAGES = {**_HF, "image_size": 32, "patch_size": 8}
_HF_TEXTS = {**_HF, "vocab_size": 30, "pad_token_id": 0, "max_position_embeddings": 16}


def _swin() -> nn.Module:
    return SwinTransformer(
        img_size=32, patch_size=2, embed_dim=24, depths=(1, 3), num_heads=(2, 4), window_size=4, num_classes=CLASSES
    )


def _transformers() -> Any:
    """The package; the attention of its earlier versions is written otherwise."""
    return pytest.importorskip("transformers", minversion="5")


def _hugging_face(kind: str, **options: Any) -> nn.Module:
    transformers = _transformers()
    config = getattr(transformers, f"{kind}Config")(**options)
    task = "ImageClassification" if "image_size" in options else "SequenceClassification"
    network: nn.Module = getattr(transformers, f"{kind}For{task}")(config)
    return network


def _clip() -> nn.Module:
    transformers = _transformers()
    vision = {k: v for k, v in _HF_IMAGES.items() if k != "num_labels"}
    config = transformers.CLIPConfig(vision_config=vision, num_labels=CLASSES)
    return transformers.CLIPForImageClassification(config)


def _modern_bert() -> nn.Module:
    """Rotary positions, and a window of three words in every other layer."""
    ids = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    return _hugging_face("ModernBert", **_HF_TEXTS, **ids, local_attention=2, global_attn_every_n_layers=2)


def _torchvision() -> nn.Module:
    from torchvision.models import VisionTransformer as Torchvision

    return Torchvision(32, 8, num_layers=DEPTH, num_heads=HEADS, hidden_dim=WIDTH, mlp_dim=64, num_classes=CLASSES)


class Probe(nn.Module):
    """A linear probe on open_clip's image tower."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        from open_clip.transformer import VisionTransformer as Tower

        self.visual = Tower(32, 8, WIDTH, DEPTH, HEADS, 2.0, output_dim=24, **options)
        self.fc = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.visual(x))  # type: ignore[no-any-return]


class DecoderProbe(nn.Module):
    """A linear layer on the last word that a text decoder reads."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = _hugging_face("Llama", **_HF_TEXTS, num_key_value_heads=2).model
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        hidden = self.decoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        last = (torch.arange(input_ids.shape[1], device=input_ids.device) * (input_ids != 0)).argmax(-1)
        return self.fc(hidden[torch.arange(len(hidden)), last])  # type: ignore[no-any-return]


#: What makes each network; those of one family begin with the same word.
MODELS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: VisionTransformer(**TIMM),
    "vit-avg": lambda: VisionTransformer(**TIMM, class_token=False, global_pool="avg"),
    "vit-map": lambda: VisionTransformer(**TIMM, class_token=False, global_pool="map"),
    "vit-registers": lambda: VisionTransformer(**TIMM, reg_tokens=2, global_pool="avg", fc_norm=True),
    "vit-distilled": lambda: VisionTransformerDistilled(**TIMM),
    "vit-norms": lambda: VisionTransformer(**TIMM, qk_norm=True, init_values=0.5, class_token=False, global_pool="avg"),
    "parallel": lambda: VisionTransformer(**TIMM, block_fn=ParallelScalingBlock, qk_norm=True),
    "parallel-things": lambda: VisionTransformer(**TIMM, block_fn=ParallelThingsBlock, init_values=0.5),
    "parallel-post": lambda: VisionTransformer(**TIMM, block_fn=ResPostBlock),
    "eva": lambda: Eva(**TIMM, use_rot_pos_emb=True),
    "eva-registers": lambda: Eva(
        **TIMM, use_rot_pos_emb=True, num_reg_tokens=2, attn_type="rope", global_pool="avg", qk_norm=True
    ),
    "beit": lambda: Beit(**TIMM, use_rel_pos_bias=True, init_values=0.5),
    "beit-shared": lambda: Beit(**TIMM, use_shared_rel_pos_bias=True, global_pool="token"),
    "relpos": lambda: VisionTransformerRelPos(**TIMM, init_values=0.5, rel_pos_type="bias"),
    "relpos-shared": lambda: VisionTransformerRelPos(
        **TIMM, class_token=True, global_pool="token", shared_rel_pos=True
    ),
    "swin": _swin,
    "hf-vit": lambda: _hugging_face("ViT", **_HF_IMAGES),
    "hf-dinov2": lambda: _hugging_face("Dinov2", **_HF_IMAGES),
    "hf-clip": _clip,
    "hf-bert": lambda: _hugging_face("Bert", **_HF_TEXTS, hidden_dropout_prob=0.0),  # there is one before the head
    "hf-modernbert": _modern_bert,
    "hf-llama": lambda: _hugging_face("Llama", **_HF_TEXTS, num_key_value_heads=2),
    "hf-llama-probe": DecoderProbe,
    "torchvision": _torchvision,
    "open_clip": lambda: Probe(),
    "open_clip-own": lambda: Probe(block_type="custom", qk_norm=True),
}


def network_of(name: str) -> Any:
    """In evaluation mode, with weights large enough that attention is far from uniform; always the same."""
    torch.manual_seed(0)
    return shaken(MODELS[name]().double().eval())


def inputs_of(name: str, count: int = 3) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Images, or padded texts with a mask."""
    if not reads_text(name):
        return (images(count),), {}
    ids = torch.randint(1, 30, (count, 9), generator=torch.Generator().manual_seed(1))
    ids[1, 6:] = 0
    return (), {"input_ids": ids, "attention_mask": (ids != 0).long()}


def reads_text(name: str) -> bool:
    return name.startswith(("hf-bert", "hf-modernbert", "hf-llama"))


def logits_of(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits  # type: ignore[no-any-return]


def tower_of(network: Any) -> Any:
    """The part that prompts are put into."""
    return getattr(network, "visual", getattr(network, "decoder", network))


def head_of(network: Any) -> nn.Module:
    """The layer that makes the logits."""
    for path in ("classifier", "score", "fc", "heads.head", "head.fc", "head"):
        try:
            return network.get_submodule(path)  # type: ignore[no-any-return]
        except AttributeError:
            continue
    raise AssertionError("no head")
