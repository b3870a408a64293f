from __future__ import annotations

import copy

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from tiny import images, shaken, tiny_vit
from torch import nn
from torch.testing import assert_close

from lightning_cl import extend
from lightning_cl.nn import Prefix, PromptProvider, Prompts
from lightning_cl.nn.prompted_vit import PromptedViT, install_prompts

POOLED = [
    {},
    {"reg_tokens": 2},
    {"global_pool": "avg"},
    {"global_pool": "avgmax", "fc_norm": False},
    {"global_pool": "map"},
]
pooled = pytest.mark.parametrize("options", POOLED, ids=lambda o: "-".join(map(str, o.values())) or "token")
NOISY = {"drop_rate": 0.5, "pos_drop_rate": 0.5, "proj_drop_rate": 0.5, "attn_drop_rate": 0.5, "drop_path_rate": 0.5}


class Fixed(PromptProvider):
    """The same prompts for every image; remembers the queries."""

    def __init__(self, layers=(0, 3), length=2, num_tokens=0, pool_tokens=False, seed=2):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layers, self.pool_tokens, self.queries = layers, pool_tokens, []
        draw = lambda *shape: nn.Parameter(torch.randn(*shape, dtype=torch.float64, generator=generator))  # noqa: E731
        self.prefix, self.extra = draw(len(layers), 2, 1, length, 48), draw(1, num_tokens, 48)

    def forward(self, query):
        self.queries.append(query)
        prefixes = {layer: Prefix(*self.prefix[i]) for i, layer in enumerate(self.layers)}
        return Prompts(prefixes, self.extra if self.extra.shape[1] else None, pool_tokens=self.pool_tokens)


def prompted(vit, provider=None):
    provider = provider or Fixed()
    extend(vit, PromptedViT)
    install_prompts(vit, provider)
    return vit, provider


@pooled
def test_prefixes_of_no_rows_leave_the_frozen_model_as_it_is(options):
    vit = tiny_vit(**options)
    expected, features = vit(images(3)), vit.forward_features(images(3))
    vit, _ = prompted(vit, Fixed(layers=(0, 1, 2, 3, 4, 5), length=0))
    assert torch.equal(vit.forward_features(images(3)), features)
    assert_close(vit.forward_head(features), expected, rtol=0, atol=1e-12)  # torch 2.5's last bit is the memory's
    assert_close(vit(images(3)), expected, rtol=0, atol=1e-10)


def test_a_zero_prefix_changes_the_logits():
    vit = tiny_vit()
    expected = vit(images(3))
    provider = Fixed(length=1)
    provider.prefix.data.zero_()
    vit, _ = prompted(vit, provider)
    assert (vit(images(3)) - expected).abs().max() > 1e-3


@pooled
@pytest.mark.parametrize("layers", [(0, 3), (2,), (4, 5)])
def test_prefixes_enter_their_layers_and_no_others(options, layers):
    vit = tiny_vit(**options)
    provider, reference = Fixed(layers), copy.deepcopy(vit)
    for i, layer in enumerate(layers):  # the same by hooks on the key and value projection of an unfused attention
        attention = reference.blocks[layer].attn
        attention.forward = by_hand(attention, *provider.prefix[i].detach())
    vit, _ = prompted(vit, provider)
    assert_close(vit(images(3)), reference(images(3)), rtol=0, atol=1e-10)


def by_hand(attention, key, value):
    def forward(x, **_):
        q, k, v = attention.qkv(x).chunk(3, dim=-1)
        k, v = (torch.cat([p.expand(len(x), -1, -1), own], dim=1) for p, own in ((key, k), (value, v)))
        q, k, v = (t.unflatten(2, (4, 12)).transpose(1, 2) for t in (q, k, v))
        mixed = (q @ k.mT / 12**0.5).softmax(-1) @ v
        return attention.proj(mixed.transpose(1, 2).flatten(2))

    return forward


@pooled
@pytest.mark.parametrize("num_tokens", [0, 3])
def test_computing_only_what_is_read_changes_nothing(options, num_tokens):
    vit, _ = prompted(tiny_vit(**options), Fixed(layers=(0, 5), num_tokens=num_tokens))
    assert_close(vit(images(3)), vit.forward_head(vit.forward_features(images(3))), rtol=0, atol=1e-10)


def test_a_distilled_model_reads_two_tokens():
    torch.manual_seed(0)
    vit = VisionTransformerDistilled(img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=4, num_classes=10)
    vit = shaken(vit.double().eval())
    expected = vit(images(2))
    vit, _ = prompted(vit, Fixed(layers=(0,), length=0))
    assert_close(vit(images(2)), expected, rtol=0, atol=1e-10)
    assert all(p.requires_grad == name.startswith("head") for name, p in vit.named_parameters())


def test_prompt_tokens_join_before_the_first_block():
    vit = tiny_vit()
    provider = Fixed(layers=(), num_tokens=3)
    x = torch.cat([provider.extra.detach().expand(2, -1, -1), vit._pos_embed(vit.patch_embed(images(2)))], dim=1)
    outputs = vit.norm(vit.blocks(x))  # 3 prompt tokens, class token, 16 patches
    class_token, mean = vit.head(outputs[:, 3]), vit.head(outputs[:, :3].mean(dim=1))

    vit, _ = prompted(vit, provider)
    assert vit.forward_features(images(2)).shape == (2, 17, 48)
    assert_close(vit(images(2)), class_token, rtol=0, atol=1e-10)
    provider.pool_tokens = True
    assert_close(vit(images(2)), mean, rtol=0, atol=1e-10)
    assert_close(vit.forward_head(vit.forward_features(images(2))), mean, rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", [*POOLED, NOISY], ids=str)
@pytest.mark.parametrize("layers", [(0,), (3, 5), (5,)])
def test_the_query_is_the_feature_of_the_frozen_model(options, layers):
    vit = tiny_vit(**options)
    expected = vit.forward_head(vit.forward_features(images(4)), pre_logits=True)
    vit, provider = prompted(vit, Fixed(layers))
    for mode in (True, False, True):
        vit.train(mode)
        vit(images(4).requires_grad_())
    provider.prefix.data.mul_(-5)
    vit.forward_features(images(4))
    for query in provider.queries:
        assert_close(query, expected, rtol=0, atol=1e-10)
        assert torch.equal(query, provider.queries[0])
        assert not query.requires_grad


def test_a_model_without_pooling_has_the_class_token_as_query():
    vit = tiny_vit(global_pool="", num_classes=0)
    expected = vit.forward_features(images(2))[:, 0]
    vit, provider = prompted(vit, Fixed(length=0))
    assert_close(vit(images(2))[:, 0], expected, rtol=0, atol=1e-10)
    assert_close(provider.queries[0], expected, rtol=0, atol=1e-10)


def test_a_provider_that_needs_no_query_costs_no_pass():
    provider = Fixed()
    provider.needs_query = False
    vit, _ = prompted(tiny_vit(), provider)
    calls = []
    vit.blocks[1].mlp.register_forward_hook(lambda *_: calls.append(1))
    vit(images(2))
    assert provider.queries == [None]
    assert len(calls) == 1


def test_blocks_before_the_first_prompt_run_once():
    vit, _ = prompted(tiny_vit(), Fixed(layers=(2, 4)))
    calls = []
    for index, block in enumerate(vit.blocks):
        block.mlp.register_forward_hook(lambda *_, index=index: calls.append(index))
    vit(images(2))
    assert [calls.count(index) for index in range(6)] == [1, 1, 2, 2, 2, 2]


def test_a_training_step_trains_head_and_prompts_only():
    vit, provider = prompted(tiny_vit(**NOISY))
    before = {name: p.detach().clone() for name, p in vit.named_parameters()}
    trained = [*(p for p in vit.parameters() if p.requires_grad), *provider.parameters()]
    optimizer = torch.optim.AdamW(trained, weight_decay=0.1)
    vit.train()
    vit(images(4)).square().mean().backward()
    optimizer.step()

    assert {name for name, p in vit.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    assert provider.prefix.grad.abs().min() > 0
    for name, parameter in vit.named_parameters():
        if not name.startswith("head."):
            assert torch.equal(parameter, before[name])
            assert parameter.grad is None
    assert {name for name, m in vit.named_modules() if m.training} == {"", "head", "head_drop"}


def test_gradients_stop_at_the_first_prompted_block():
    vit, _ = prompted(tiny_vit(), Fixed(layers=(3,)))
    seen = {}
    for index, block in enumerate(vit.blocks):
        block.norm1.register_forward_hook(lambda _, args, __, index=index: seen.update({index: args[0].requires_grad}))
    vit(images(2))
    assert seen == {0: False, 1: False, 2: False, 3: False, 4: True, 5: True}


def test_gradient_checkpointing_gives_the_same_gradients():
    vit, provider = prompted(tiny_vit(**NOISY))
    gradients = []
    for enable in (False, True):
        vit.set_grad_checkpointing(enable)
        gradients.append(torch.autograd.grad(vit(images(3)).square().sum(), provider.prefix)[0])
    assert_close(gradients[0], gradients[1], rtol=0, atol=1e-12)


def test_names_and_weights_of_the_model_stay():
    plain = tiny_vit()
    vit, _ = prompted(tiny_vit())
    assert {k: v.shape for k, v in vit.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    vit.load_state_dict(plain.state_dict())


def test_a_copy_has_its_own_prompts():
    vit, provider = prompted(tiny_vit())
    other = copy.deepcopy(vit)
    expected = vit(images(2))
    provider.prefix.data.zero_()
    assert torch.equal(other(images(2)), expected)


@pytest.mark.parametrize(
    ("options", "layers", "words"),
    [
        ({}, (0, 6, 9), r"prompt layers \[6, 9\] do not exist: the ViT has 6 blocks, 0 to 5"),
        ({"attn_layer": "diff"}, (3,), r"block 3 of the ViT is a Block with the attention DiffAttention"),
    ],
)
def test_models_that_cannot_be_prompted_are_refused(options, layers, words):
    with pytest.raises(ValueError, match=words):
        prompted(tiny_vit(**options), Fixed(layers))


def test_arguments_beside_images_are_refused():
    vit, _ = prompted(tiny_vit())
    mask = torch.ones(17, 17, dtype=torch.bool)
    for call in (vit, vit.forward_features):
        with pytest.raises(ValueError, match="does not take attn_mask"):
            call(images(1), attn_mask=mask)
        with pytest.raises(ValueError, match="does not take a positional argument 2"):
            call(images(1), mask)
        call(images(1), attn_mask=None, is_causal=False)


# ---------------------------------------------------------------------- deep prompt tuning


class Appended(PromptProvider):
    """Tokens of their own for each layer, and for each image if ``count`` is given."""

    def __init__(self, layers=(0, 3), length=2, count=1, prefixes=False, query_layer=None):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        draw = lambda *shape: nn.Parameter(torch.randn(*shape, dtype=torch.float64, generator=generator))  # noqa: E731
        self.layers, self.query_layer, self.queries = layers, query_layer, []
        self.tokens, self.prefix, self.with_prefix = draw(len(layers), count, length, 48), draw(2, 1, 3, 48), prefixes

    def forward(self, query):
        self.queries.append(query)
        prefixes = {self.layers[0]: Prefix(*self.prefix)} if self.with_prefix else {}
        return Prompts(prefixes, appended=dict(zip(self.layers, self.tokens, strict=True)))


def append_literally(vit, layers, tokens):
    """Concatenate before the block, run timm's own block, cut off after it."""
    for layer, rows in zip(layers, tokens.detach(), strict=True):
        block = vit.blocks[layer]

        def forward(x, own=block.forward, rows=rows, **_):
            return own(torch.cat([x, rows.expand(len(x), -1, -1)], dim=1))[:, : x.shape[1]]

        block.forward = forward
    return vit


DEEP = [*POOLED, {"qk_norm": True, "init_values": 0.5}, {"qkv_bias": False}]


@pytest.mark.parametrize("options", DEEP, ids=str)
@pytest.mark.parametrize(("layers", "count"), [((0, 3), 1), ((2, 3), 3), ((1, 5), 3)])
def test_appended_tokens_join_a_block_and_leave_after_it(options, layers, count):
    provider = Appended(layers, count=count)
    expected = append_literally(tiny_vit(**options), layers, provider.tokens)(images(3))
    vit, _ = prompted(tiny_vit(**options), provider)
    assert (tiny_vit(**options)(images(3)) - expected).abs().max() > 1e-3
    assert_close(vit(images(3)), expected, rtol=0, atol=1e-10)
    assert vit.forward_features(images(3)).shape[1] == tiny_vit(**options).forward_features(images(3)).shape[1]
    assert_close(vit.forward_head(vit.forward_features(images(3))), expected, rtol=0, atol=1e-10)


def test_gradients_of_appended_tokens_are_those_of_the_literal_way():
    provider, literal = Appended(count=3), nn.Parameter(Appended(count=3).tokens.detach().clone())
    vit, _ = prompted(tiny_vit(), provider)
    vit(images(3)).square().sum().backward()
    reference = tiny_vit()
    x = reference._pos_embed(reference.patch_embed(images(3)))
    for index, block in enumerate(reference.blocks):
        extra = [literal[provider.layers.index(index)]] if index in provider.layers else []
        x = block(torch.cat([x, *extra], dim=1))[:, :17]
    reference.head(reference.norm(x)[:, 0]).square().sum().backward()
    assert provider.tokens.grad.abs().amin() > 0
    assert_close(provider.tokens.grad, literal.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count", [1, 3])
def test_a_layer_may_have_a_prefix_and_appended_tokens(count):
    provider = Appended((1, 5), count=count, prefixes=True)
    reference = tiny_vit()
    attention = reference.blocks[1].attn
    attention.forward = by_hand(attention, *provider.prefix.detach())
    append_literally(reference, provider.layers, provider.tokens)
    vit, _ = prompted(tiny_vit(), provider)
    assert_close(vit(images(3)), reference(images(3)), rtol=0, atol=1e-10)


def test_appended_tokens_survive_gradient_checkpointing():
    vit, provider = prompted(tiny_vit(**NOISY), Appended(count=3))
    gradients = []
    for enable in (False, True):
        vit.set_grad_checkpointing(enable)
        gradients.append(torch.autograd.grad(vit(images(3)).square().sum(), provider.tokens)[0])
    assert_close(gradients[0], gradients[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", POOLED[:3], ids=str)
@pytest.mark.parametrize(("query_layer", "block"), [(-2, 4), (-1, 5), (2, 2)])
@pytest.mark.parametrize("layers", [(0, 1), (3, 4), (5,)])
def test_the_query_can_be_a_class_token_on_the_way(options, query_layer, block, layers):
    reference, seen = tiny_vit(**options), []
    reference.blocks[block].register_forward_hook(lambda _, __, output: seen.append(output[:, 0]))
    reference(images(3))
    vit, provider = prompted(tiny_vit(**options), Appended(layers, query_layer=query_layer))
    plain, _ = prompted(tiny_vit(**options), Appended(layers))
    for _ in range(2):
        assert_close(vit(images(3)), plain(images(3)), rtol=0, atol=1e-10)
        assert_close(provider.queries[-1], seen[0], rtol=0, atol=1e-10)
        assert not provider.queries[-1].requires_grad


def test_blocks_behind_the_query_are_not_run_for_it():
    vit, _ = prompted(tiny_vit(), Appended((2,), query_layer=-2))
    tokens = []
    for index, block in enumerate(vit.blocks):
        block.mlp.register_forward_hook(lambda _, args, __, index=index: tokens.append((index, args[0].shape[1])))
    vit(images(2))
    # Shared, then the query with only the class token in its last block, then the prompted pass.
    assert tokens == [(0, 17), (1, 17), (2, 17), (3, 17), (4, 1), (2, 17), (3, 17), (4, 17), (5, 1)]


@pytest.mark.parametrize("query_layer", [6, -7])
def test_a_query_beyond_the_depth_is_refused(query_layer):
    with pytest.raises(ValueError, match=rf"read after block {query_layer}, but the ViT has 6 block\(s\), 0 to 5"):
        prompted(tiny_vit(), Appended(query_layer=query_layer))
