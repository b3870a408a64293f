"""Where adapters go in networks of several libraries, and what is frozen then."""

from __future__ import annotations

import pytest
import timm
import torch
from attention_models import inputs_of, network_of
from conformance.modules import CLIPProbe, PlainModule, tiny_clip
from tiny import tiny_vit
from torch import nn

from lightning_cl.nn.adapters import Adapter, block_linears, block_mlps, freeze_all_but, inject, split_mlps

ATTENTION, MLP = ("attn.qkv", "attn.proj"), ("mlp.fc1", "mlp.fc2")


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "swin_tiny_patch4_window7_224", "convnext_tiny"])
def test_networks_of_timm(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    linears, mlps = block_linears(model), block_mlps(model)
    depth = sum(n.endswith(".mlp") for n, _ in model.named_modules())
    assert depth == len(mlps) > 0
    assert all(f"{mlp}.fc1" in linears or f"{mlp}.fc1_g" in linears for mlp in mlps)
    assert not any(name.startswith(("head", "patch_embed")) for name in linears)


def test_a_vit_in_a_module_and_the_image_tower_of_clip():
    module = PlainModule()
    assert block_linears(module) == [f"net.blocks.{i}.{part}" for i in range(3) for part in (*ATTENTION, *MLP)]
    clip = tiny_clip()
    assert block_mlps(clip) == [f"visual.transformer.resblocks.{i}.mlp" for i in range(3)]
    assert [n.rpartition(".")[2] for n in block_linears(clip)] == ["c_fc", "c_proj"] * 3  # attention calls no layer


def test_layers_of_hugging_face():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    model = transformers.BertModel(transformers.BertConfig(**sizes, vocab_size=20))
    names = block_linears(model)
    assert len(names) == 12
    assert "encoder.layer.1.attention.self.query" in names


def test_mlps_of_torchvision_whose_blocks_have_their_number_behind_a_name():
    from torchvision.models import VisionTransformer

    vit = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12, num_classes=4)
    mlps = [f"encoder.layers.encoder_layer_{i}.mlp" for i in range(2)]
    assert block_mlps(vit) == mlps
    assert block_linears(vit) == [f"{mlp}.{i}" for mlp in mlps for i in (0, 3)]


def test_layers_that_are_read_and_not_called_are_left_out():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2)
    assert block_linears(encoder) == []


@pytest.mark.parametrize(("build", "head"), [(tiny_vit, "head"), (CLIPProbe, "fc")])
def test_all_but_the_head_is_frozen_and_in_eval_mode(build, head):
    module = nn.ModuleDict({"net": build(), "loss": nn.CrossEntropyLoss(), "extra": nn.BatchNorm1d(3)})
    freeze_all_but(module, f"net.{head}")
    module.train()
    assert {n for n, p in module.named_parameters() if p.requires_grad} == {f"net.{head}.weight", f"net.{head}.bias"}
    training = {n for n, m in module.named_modules() if m.training and n.startswith(("net.", "extra"))}
    assert training == ({"net.fc_norm", "net.head_drop", "net.head"} if head == "head" else {"net.drop", "net.fc"})


def test_what_is_skipped_stays():
    module = nn.ModuleDict({"net": nn.Linear(2, 2), "own": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    freeze_all_but(module, "head", skip=("own",))
    assert [n for n, p in module.named_parameters() if p.requires_grad] == [
        "own.weight",
        "own.bias",
        "head.weight",
        "head.bias",
    ]


@torch.no_grad()
def test_an_adapter_beside_the_two_halves_of_berts_mlp():
    """``output(...) + scale * (U relu(D x + d) + u)``, with ``x`` what the first half reads; at first all is plain."""
    plain, adapted = network_of("hf-bert"), network_of("hf-bert")
    names = split_mlps(adapted)
    assert names == [f"bert.encoder.layer.{i}.output" for i in range(3)]
    assert block_mlps(adapted) == split_mlps(PlainModule()) == []
    banks = inject(adapted, lambda part: Adapter(1, 48, 4, 0.5, 0.0), "|".join(names), read="intermediate")
    _, inputs = inputs_of("hf-bert")
    assert torch.equal(adapted(**inputs).logits, plain(**inputs).logits)

    for bank, name in zip(banks, names, strict=True):
        for parameter in bank.parameters():
            parameter.normal_(0, 0.3)
        block, read = plain.get_submodule(name.removesuffix(".output")), []

        def added(_, args, output, bank=bank, read=read):
            hidden = (read[-1] @ bank.down[0].T + bank.down_bias[0]).relu()
            return output + 0.5 * (hidden @ bank.up[0] + bank.up_bias[0])

        block.intermediate.register_forward_pre_hook(lambda _, args, read=read: read.append(args[0]))
        block.output.register_forward_hook(added)
    expected = plain(**inputs).logits
    torch.testing.assert_close(adapted(**inputs).logits, expected, rtol=0, atol=1e-9)
    assert not torch.equal(expected, network_of("hf-bert")(**inputs).logits)
