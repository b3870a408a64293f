"""The categories of transformers as several libraries name them, counted by hand from their papers' layers."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightning_cl.nn.half_masks import embedding_names, frozen_share
from lightning_cl.nn.transformer_layers import fused_parts, transformer_blocks

BLOCKS = 4


def hugging_face(kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    small = {
        "Bert": {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_hidden_layers": BLOCKS},
        "DistilBert": {"dim": 8, "hidden_dim": 12, "n_heads": 2, "n_layers": BLOCKS},
        "GPT2": {"n_embd": 8, "n_inner": 12, "n_head": 2, "n_layer": BLOCKS},
        "Llama": {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_hidden_layers": BLOCKS},
        "T5": {"d_model": 8, "d_kv": 4, "d_ff": 12, "num_heads": 2, "num_layers": BLOCKS},
        "ViT": {
            **{"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_hidden_layers": BLOCKS},
            **{"image_size": 8, "patch_size": 4},
        },
    }[kind]
    words = {} if kind == "ViT" else {"vocab_size": 11}
    with torch.device("meta"):
        return getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**small, **words))  # type: ignore[no-any-return]


def open_clip() -> nn.Module:
    layers = pytest.importorskip("open_clip.transformer")
    net: nn.Module = layers.Transformer(width=8, layers=BLOCKS, heads=2, mlp_ratio=1.5)
    return nn.ModuleDict({"transformer": net})


def pytorch() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12), BLOCKS, enable_nested_tensor=False)


#: Blocks, attentions of a block, matrices of its MLP, norms.
LAYOUTS: dict[str, tuple[Callable[[], nn.Module], int, int, int, int]] = {
    "Bert": (lambda: hugging_face("Bert"), BLOCKS, 1, 2, 2),
    "DistilBert": (lambda: hugging_face("DistilBert"), BLOCKS, 1, 2, 2),
    "GPT2": (lambda: hugging_face("GPT2"), BLOCKS, 1, 2, 2),
    "Llama": (lambda: hugging_face("Llama"), BLOCKS, 1, 3, 2),
    "ViT": (lambda: hugging_face("ViT"), BLOCKS, 1, 2, 2),
    "open_clip": (open_clip, BLOCKS, 1, 2, 2),
    "pytorch": (pytorch, BLOCKS, 1, 2, 2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str) -> None:
    make, blocks, attentions, mlp, norms = LAYOUTS[layout]
    net = make()
    weights = dict(net.named_parameters())
    embeddings = embedding_names(net)
    found = transformer_blocks(weights, embeddings)
    assert len(found) == blocks
    for block in found:
        assert [len(units) for units in block.attentions.values()] == [4] * attentions
        assert (len(block.mlp), len(block.norms)) == (mlp, norms)
    masks = frozen_share(weights, 0.5, torch.Generator().manual_seed(1), embeddings)
    assert_half(weights, masks, blocks, mlp)


def assert_half(weights: dict[str, Tensor], masks: dict[str, Tensor], blocks: int, mlp: int) -> None:
    """8 x 8 values of each of two attention matrices a block, half of the norms, and half of the MLPs' values."""
    assert all(mask.shape == weights[name].shape for name, mask in masks.items())
    frozen = {name: int(mask.sum()) for name, mask in masks.items() if weights[name].ndim > 1}
    attention = sum(count for name, count in frozen.items() if "att" in name.lower() and "Norm" not in name)
    assert attention == blocks * 2 * 64
    assert sum(count for count in frozen.values()) - attention == blocks * mlp * 96 // 2
    norms = {name: mask for name, mask in masks.items() if re.search(r"(norm|ln)[^.]*\.weight", name, re.IGNORECASE)}
    assert sum(bool(mask.all()) for mask in norms.values()) == blocks


def test_encoder_and_decoder_of_t5() -> None:
    """A decoder's block has two attentions and three norms; an encoder's one and two."""
    net = hugging_face("T5")
    found = transformer_blocks(dict(net.named_parameters()), embedding_names(net))
    shapes = sorted((len(block.attentions), len(block.mlp), len(block.norms)) for block in found)
    assert shapes == [(1, 2, 2)] * BLOCKS + [(2, 2, 3)] * BLOCKS


def test_thirds_of_gpt_2_are_columns() -> None:
    """Its layers hold ``(in, out)``: queries are the first third of the columns, for all rows, with their bias."""
    weights = {name: weight for name, weight in hugging_face("GPT2").named_parameters() if name.startswith("h.")}
    masks = frozen_share(weights, 0.5, torch.Generator().manual_seed(0))
    for block in range(BLOCKS):
        fused = masks[f"h.{block}.attn.c_attn.weight"]
        assert all(len(third.unique()) == 1 for third in fused.chunk(3, 1))
        assert torch.equal(fused[0], masks[f"h.{block}.attn.c_attn.bias"])


def test_convolutions_with_attention_are_no_transformer() -> None:
    parts: dict[str, nn.Module] = {"conv": nn.Conv2d(2, 2, 3), "attn": nn.ModuleDict({"fc": nn.Linear(2, 2)})}
    weights = dict(nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict(parts)])}).named_parameters())
    assert transformer_blocks(weights) == []


def test_a_fused_projection_is_known_by_its_name_and_its_rows() -> None:
    fused = torch.zeros(12, 4)
    for name in (
        "blocks.0.attn.qkv.weight",
        "attn.in_proj_weight",
        "attn.Wqkv.weight",
        "self_attn.qkv_proj.weight",
        "0.to_qkv.weight",
    ):
        assert (fused_parts(name, fused), fused_parts(name, fused[:8])) == (3, 1)
    assert fused_parts("mlp.fc1.weight", fused) == 1  # three times as wide, and no projection
    assert fused_parts("qkv.weight", torch.zeros(12, 4, 3, 3)) == 1
    assert fused_parts("h.0.self_attention.query_key_value.weight", fused) == 1  # BLOOM: a head's rows stand together
