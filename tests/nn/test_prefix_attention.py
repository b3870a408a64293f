from __future__ import annotations

from inspect import signature

import pytest
import torch
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from tiny import shaken, tiny_vit
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn.prefix_attention import Prefix, check_block, prefix_attention, run_block

KNOWN = signature(VisionTransformer).parameters  # older timm has fewer
VARIANTS = [{}, {"qkv_bias": False}, {"qk_norm": True}, {"init_values": 0.1}, {"scale_attn_norm": True}]
variants = pytest.mark.parametrize(
    "options", [o for o in VARIANTS if set(o) <= set(KNOWN)], ids=lambda o: next(iter(o), "plain")
)


def block_of(**options):
    return tiny_vit(**options).blocks[2]


def tokens(batch=3, count=17):
    return torch.randn(batch, count, 48, dtype=torch.float64)


def prefix_of(length, batch=3):
    return Prefix(*torch.randn(2, batch, length, 48, dtype=torch.float64))


def by_the_formula(attn, x, prefix):
    """softmax(Q [P_K; K]^T / sqrt(d)) [P_V; V], head by head, each head 12 neighbouring channels."""
    qkv = x @ attn.qkv.weight.T + (0 if attn.qkv.bias is None else attn.qkv.bias)
    q, k, v = qkv[..., :48], qkv[..., 48:96], qkv[..., 96:]
    heads = []
    for h in range(4):
        own = slice(12 * h, 12 * (h + 1))
        keys = torch.cat([prefix.key[..., own], attn.k_norm(k[..., own])], dim=1)
        values = torch.cat([prefix.value[..., own], v[..., own]], dim=1)
        scores = attn.q_norm(q[..., own]) @ keys.mT / 12**0.5
        heads.append(scores.softmax(-1) @ values)
    return attn.proj(getattr(attn, "norm", nn.Identity())(torch.cat(heads, dim=-1)))


@variants
def test_attention_is_the_formula(options):
    attn, x, prefix = block_of(**options).attn, tokens(), prefix_of(5)
    assert_close(prefix_attention(attn, x, prefix), by_the_formula(attn, x, prefix), rtol=0, atol=1e-10)


@variants
def test_a_prefix_of_no_rows_is_the_block_itself(options):
    block, x = block_of(**options), tokens()
    expected = block(x)
    assert torch.equal(run_block(block, x), expected)
    assert torch.equal(run_block(block, x, prefix_of(0)), expected)


def test_a_zero_prefix_is_not_neutral():  # each row adds e^0 to the softmax's sum
    block, x = block_of(), tokens()
    zeros = torch.zeros(3, 1, 48, dtype=torch.float64)
    assert (run_block(block, x, Prefix(zeros, zeros)) - block(x)).abs().max() > 1e-3


def test_the_order_of_prefix_rows_does_not_matter_but_keys_and_values_belong_together():
    attn, x, prefix = block_of().attn, tokens(), prefix_of(5)
    expected, order = prefix_attention(attn, x, prefix), torch.tensor([3, 0, 4, 1, 2])
    jointly = Prefix(prefix.key[:, order], prefix.value[:, order])
    keys_only = Prefix(prefix.key[:, order], prefix.value)
    assert_close(prefix_attention(attn, x, jointly), expected, rtol=0, atol=1e-10)
    assert (prefix_attention(attn, x, keys_only) - expected).abs().max() > 1e-3


@variants
@pytest.mark.parametrize("length", [0, 4])
@pytest.mark.parametrize("rows", [1, 3])
def test_the_first_rows_alone_are_those_of_the_full_pass(options, length, rows):
    block, x, prefix = block_of(**options), tokens(), prefix_of(length)
    few = run_block(block, x, prefix, rows)
    assert few.shape == (3, rows, 48)
    assert_close(few, run_block(block, x, prefix)[:, :rows], rtol=0, atol=1e-10)


def test_an_adapter_in_the_place_of_the_projection_is_used():
    class LowRank(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.weight, self.bias = base, base.weight, base.bias
            self.down, self.up = shaken(nn.Linear(48, 2).double()), shaken(nn.Linear(2, 144).double())

        def forward(self, x):
            return self.base(x) + self.up(self.down(x))

    block, x, prefix = block_of(), tokens(), prefix_of(2)
    plain = run_block(block, x, prefix, rows=1)
    block.attn.qkv = LowRank(block.attn.qkv)
    adapted = run_block(block, x, prefix, rows=1)
    assert_close(adapted, run_block(block, x, prefix)[:, :1], rtol=0, atol=1e-10)
    assert (adapted - plain).abs().max() > 1e-3


def test_a_shared_prefix_is_the_same_for_every_sample():
    attn, x, shared = block_of().attn, tokens(), prefix_of(4, batch=1)
    copied = Prefix(shared.key.repeat(3, 1, 1), shared.value.repeat(3, 1, 1))
    assert torch.equal(prefix_attention(attn, x, shared), prefix_attention(attn, x, copied))


def test_gradients_reach_the_prefix_and_are_right():
    attn, x = block_of().attn.requires_grad_(False), tokens(batch=1, count=3)
    key, value = (p.requires_grad_() for p in prefix_of(2, batch=1))
    assert torch.autograd.gradcheck(lambda k, v: prefix_attention(attn, x, Prefix(k, v)), (key, value))


def refused_blocks():
    yield ParallelScalingBlock(48, 4), "ParallelScalingBlock"
    yield nn.Identity(), "Identity"
    if "attn_layer" in KNOWN:
        yield VisionTransformer(embed_dim=48, num_heads=4, depth=1, attn_layer="diff").blocks[0], "DiffAttention"


@pytest.mark.parametrize(("block", "found"), list(refused_blocks()))
def test_blocks_that_compute_something_else_are_refused(block, found):
    with pytest.raises(ValueError, match=rf"block 2 of the ViT is a .*{found}.*use a ViT"):
        check_block(block, 2)


def test_timms_own_block_is_accepted():
    check_block(block_of(qk_norm=True), 0)
