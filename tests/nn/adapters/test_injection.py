"""A network with adapters against the network without, and against itself with the adapters typed into its blocks."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from tiny import images, tiny_vit
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import SSF, Adapter, Guard, LoRA, RankOne, folded, inject
from lightning_cl.nn.prefix_attention import run_block

QKV, MLP = r"blocks\.\d+\.attn\.qkv", r"blocks\.\d+\.drop_path2"


def with_adapters(vit):
    return inject(vit, lambda _: Adapter(3, 48, 4, dropout=0.0), MLP, read="norm2")


def with_lora(vit, site="lora"):
    return inject(vit, lambda layer: LoRA(3, layer.in_features, layer.out_features, 2), QKV, site)


def shaken(adapters, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapters.parameters():
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return adapters


KINDS = {
    "adapter": with_adapters,
    "lora": with_lora,
    "rank_one": lambda vit: inject(vit, lambda layer: RankOne(3, 48, 144, 2), QKV),
    "scale_shift": lambda vit: inject(vit, lambda _: SSF(3, 48, std=0.0), r"norm|blocks\.\d+\.norm\d"),
    "convolution": lambda vit: inject(vit, lambda _: SSF(3, 48, std=0.0, channel_dim=1), r"patch_embed\.proj"),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_plain_network_bit_for_bit_with_the_same_names(name):
    vit, x = tiny_vit(), images(2)
    before, names, kind = vit(x), list(vit.state_dict()), type(vit.blocks[0].norm2)
    adapters = KINDS[name](vit)
    assert torch.equal(vit(x), before)
    assert list(vit.state_dict()) == names
    assert isinstance(vit.blocks[0].norm2, kind)
    assert {p.dtype for p in adapters.parameters()} == {torch.float64}
    shaken(adapters)
    assert not torch.allclose(vit(x), before)
    with adapters.selected(None):
        assert torch.equal(vit(x), before)
    vit(x).sum().backward()
    assert all(p.grad[0].any() for p in adapters.parameters() if p.grad is not None)


def test_an_adapter_beside_the_mlp_reads_the_stream_after_attention():
    vit, plain, x = tiny_vit(), tiny_vit(), images(2)
    adapters = shaken(with_adapters(vit))
    adapters.select(1)
    tokens = plain._pos_embed(plain.patch_embed(x))
    for block, bank in zip(plain.blocks, adapters, strict=True):
        tokens = tokens + block.attn(block.norm1(tokens))
        hidden = (tokens @ bank.down[1].T + bank.down_bias[1]).relu()
        added = 0.1 * (hidden @ bank.up[1] + bank.up_bias[1, 0])
        tokens = tokens + block.mlp(block.norm2(tokens)) + added
    assert_close(vit(x), plain.forward_head(plain.norm(tokens)))


def test_blocks_that_are_run_by_hand_see_the_adapters():
    vit, tokens = tiny_vit(), torch.randn(2, 17, 48, dtype=torch.float64)
    shaken(with_lora(vit))
    shaken(with_adapters(vit))
    whole = vit.blocks[0](tokens)
    assert_close(run_block(vit.blocks[0], tokens), whole)
    assert_close(run_block(vit.blocks[0], tokens, rows=1), whole[:, :1])


@pytest.mark.parametrize("name", KINDS)
def test_folded_paths_are_separate_passes(name):
    vit, x = tiny_vit(), images(3)
    adapters, paths = shaken(KINDS[name](vit)), [None, 0, 2]
    together = folded(adapters, paths, x, vit)
    assert together.shape == (3, 3, 10)
    for out, path in zip(together, paths, strict=True):
        with adapters.selected(path):
            assert_close(out, vit(x), rtol=1e-6, atol=1e-8)
    assert adapters.paths == ((0,),)


def test_slots_that_are_added_up():
    vit, x = tiny_vit(), images(2)
    adapters = shaken(with_lora(vit))
    adapters.select((0, 2))
    both, merged = vit(x), tiny_vit()
    for block, bank in zip(merged.blocks, adapters, strict=True):
        block.attn.qkv.weight.data += bank.up[0].T @ bank.down[0] + bank.up[2].T @ bank.down[2]
    assert_close(both, merged(x))


def test_copies_and_files_have_their_own_adapters():
    vit, x = tiny_vit(), images(2)
    holder = nn.ModuleDict({"net": vit, "adapters": shaken(with_adapters(vit))})
    before = vit(x)
    copied, file = copy.deepcopy(holder), io.BytesIO()
    torch.save(holder, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    shaken(holder["adapters"], seed=1)
    assert not torch.allclose(vit(x), before)
    for other in (copied, loaded):
        assert torch.equal(other["net"](x), before)
        other["adapters"].select(None)
        assert not torch.allclose(other["net"](x), before)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_slots_of_other_tasks_stay_under_guards(kind):
    vit = tiny_vit().requires_grad_(False)
    adapters = shaken(with_adapters(vit))
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(adapters.parameters(), lr=0.01, weight_decay=0.1, **options)
    before = [p.detach().clone() for p in adapters.parameters()]
    adapters.select(1)
    guards = [Guard(parameter, rows) for parameter, rows in adapters.protected([1])]
    for _ in range(2):
        optimizer.zero_grad()
        vit(images(2)).square().sum().backward()
        optimizer.step()
        for guard in guards:
            guard.restore()
    for parameter, old in zip(adapters.parameters(), before, strict=True):
        assert torch.equal(parameter[[0, 2]], old[[0, 2]])
        assert not torch.equal(parameter[1], old[1])


def test_two_kinds_at_one_layer_and_none_twice():
    vit, x = tiny_vit(), images(2)
    first, second = shaken(with_lora(vit, "one")), shaken(with_lora(vit, "two"), seed=1)
    merged = tiny_vit()
    for block, a, b in zip(merged.blocks, first, second, strict=True):
        block.attn.qkv.weight.data += a.up[0].T @ a.down[0] + b.up[0].T @ b.down[0]
    assert_close(vit(x), merged(x))
    with pytest.raises(ValueError, match=r"`blocks.0.attn.qkv` has adapters of the site 'one' already"):
        with_lora(vit, "one")
    assert_close(vit(x), merged(x))  # left as it was


def test_what_is_refused():
    vit = tiny_vit()
    with pytest.raises(ValueError, match=r"no layer's name matches 'qkv'; linear layers are blocks.0.attn.qkv"):
        inject(vit, lambda _: Adapter(1, 48, 4), "qkv")
    with pytest.raises(ValueError, match=r"`blocks.0.mlp` has no neighbour `ln_2` to read from; its neighbours are n"):
        inject(vit, lambda _: Adapter(1, 48, 4), r"blocks\.0\.mlp", read="ln_2")
    adapters = with_adapters(vit)
    with pytest.raises(ValueError, match=r"there are no slots \[3\]: the banks have 3, 0 to 2"):
        adapters.select(1, 3)
    with pytest.raises(ValueError, match="give at least one, and each the same number of slots"):
        adapters.select(1, (0, 1))
    adapters.select(0, 1)
    with pytest.raises(ValueError, match="a batch of 3 does not hold 2 paths; pass it through `folded`"):
        vit(images(3))
