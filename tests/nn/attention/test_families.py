"""Prompts in networks of every family: exact, against attention that is typed again."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from attention_models import MODELS, WIDTH, head_of, inputs_of, logits_of, network_of, tower_of
from fixed_prompts import Fixed, prompted
from retyped_attention import retype
from tiny import images
from torch.testing import assert_close

from lightning_cl.nn import Prefix, Prompts
from lightning_cl.nn.attention import family_of

every = pytest.mark.parametrize("name", MODELS)
#: Those whose sequence takes tokens.
joining = pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith(("swin", "hf-llama"))])


def answer(network, name, count=3):
    args, kwargs = inputs_of(name, count)
    return logits_of(network(*args, **kwargs))


def blocks_of(network):
    tower = tower_of(network)
    return family_of(tower).blocks(tower)


@every
@torch.no_grad()  # with gradients a frozen layer may take a faster kernel than one that is trained
def test_prompts_of_length_zero_are_the_plain_network_bit_for_bit(name):
    expected = answer(network_of(name), name)
    network, _ = prompted(name, length=0)
    assert torch.equal(answer(network, name), expected)


@every
def test_a_prefix_is_the_same_rows_in_attention_that_is_typed_again(name):
    network, provider = prompted(name, layers=(0, 2))
    plain = network_of(name)
    expected = answer(plain, name)
    for layer in (0, 2):
        retype(name, blocks_of(plain)[layer], tuple(provider.prefix.detach()))
    assert (answer(plain, name) - expected).abs().max() > 1e-3
    assert_close(answer(network, name), answer(plain, name), rtol=0, atol=1e-6)


class OnePerImage(Fixed):
    """Each image has its own rows."""

    def forward(self, query):
        scale = torch.arange(1.0, 1 + len(query), dtype=torch.float64)[:, None, None]
        return Prompts({layer: Prefix(*(rows * scale for rows in self.prefix)) for layer in self.layers})


@pytest.mark.parametrize("name", ["vit-avg", "swin", "hf-llama", "torchvision"])
def test_each_image_may_have_a_prefix_of_its_own(name, monkeypatch):
    monkeypatch.setattr("fixed_prompts.Fixed", OnePerImage)
    network, provider = prompted(name, layers=(1,))
    plain, scale = network_of(name), torch.arange(1.0, 4, dtype=torch.float64)[:, None, None]
    retype(name, blocks_of(plain)[1], tuple(rows * scale for rows in provider.prefix.detach()))
    assert_close(answer(network, name), answer(plain, name), rtol=0, atol=1e-6)


@every
@pytest.mark.parametrize("training", [False, True])
def test_the_query_is_the_feature_that_the_head_reads(name, training):
    plain, seen = network_of(name), []
    head_of(plain).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    answer(plain, name)
    network, provider = prompted(name)
    network.train(training)
    answer(network, name)
    (query,) = provider.queries
    assert not query.requires_grad
    read = seen[0]
    if name == "vit-distilled":  # two heads, each with a token of its own: between them
        head = plain.head_dist
        head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        answer(plain, name)
        read = (read + seen[-1]) / 2
    if name == "hf-llama":  # its head reads every token, and the last one that is no padding counts
        read = torch.stack([read[0, 8], read[1, 5], read[2, 8]])
    if name.startswith("open_clip"):  # projected to another width
        read = plain.visual.ln_post(plain.visual.transformer(plain.visual._embeds(*inputs_of(name)[0])))[:, 0]
    if name == "hf-dinov2":  # class token and mean side by side
        read = read[:, :WIDTH]
    if name == "hf-modernbert":  # before the layer that learns with the head
        read = plain.model(**inputs_of(name)[1]).last_hidden_state[:, 0]
    assert_close(query, read, rtol=0, atol=1e-10)


def test_a_query_does_not_pass_through_layers_that_learn():
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    network = VisionTransformer(32, 8, 3, 4, WIDTH, 64, num_classes=6, representation_size=WIDTH).double().eval()
    tokens = torch.cat([network.class_token.expand(2, -1, -1), network._process_input(images(2))], dim=1)
    expected = network.encoder(tokens)[:, 0].detach()
    network, provider = prompted(network)
    network.train()
    for _ in range(2):
        network(images(2))
        network.heads.pre_logits.weight.data.mul_(2)
        assert network.heads.pre_logits.weight.requires_grad
        assert_close(provider.queries[-1], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["eva", "hf-vit"])
@torch.no_grad()
def test_queries_of_known_images_are_not_computed_again(name):
    network, provider = prompted(name)
    _, cache = tower_of(network).prompt_state()
    expected = answer(network.train(), name)  # in training nothing is remembered
    passes = []
    blocks_of(network)[0].register_forward_hook(lambda *given: passes.append(len(given[-1])))
    network.eval(), provider.eval()
    for forget in (False, False, True):
        if forget:
            cache.known["test"][1] = False
        cache.expect("test", torch.arange(3), 3)
        assert_close(answer(network, name), expected, rtol=0, atol=1e-10)
    assert passes == [3, 3, 3, 1, 3]  # query and prompts, prompts, the one query that was forgotten and prompts
    assert cache.hits == 2


@every
def test_head_and_prompts_learn_and_nothing_else(name):
    network, provider = prompted(name, layers=(0,))
    network.train()
    answer(network, name).square().sum().backward()
    assert provider.prefix.grad.abs().min() > 0
    head = {id(p) for p in head_of(network).parameters()}
    parts = ("head_dist", "head.")  # ModernBERT has another layer before its classifier
    learning = {n for n, p in network.named_parameters() if p.grad is not None}
    assert learning == {n for n, p in network.named_parameters() if id(p) in head or n.startswith(parts)}
    assert not any(part.training for block in blocks_of(network) for part in block.modules())


@every
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_a_copy_has_its_own_prompts(name, duplicate):
    network, provider = prompted(name)
    other, expected = duplicate(network), answer(network, name)
    assert torch.equal(answer(other, name), expected)
    provider.prefix.data.zero_()
    assert torch.equal(answer(other, name), expected)
    assert not torch.equal(answer(network, name), expected)


# ---------------------------------------------------------------------- tokens


def literally(name, network, tokens, layers, pool=False, stay=True):
    """Tokens behind all others, where neither a library's positions nor its masks count them."""
    blocks, count = blocks_of(network), tokens.shape[1]

    def lengthen(block, args, kwargs):
        (x, *rest) = args
        x = torch.cat([x, tokens.expand(len(x), -1, -1)], dim=1) if block in starts else x
        kwargs = dict(kwargs)
        if kwargs.get("rope") is not None:  # an angle of 0
            zero = kwargs["rope"].new_zeros(count, kwargs["rope"].shape[-1] // 2)
            kwargs["rope"] = torch.cat([kwargs["rope"], torch.cat([zero, zero + 1], dim=1)])
        for shared in ("shared_rel_pos_bias", "shared_rel_pos"):
            if kwargs.get(shared) is not None:
                kwargs[shared] = torch.nn.functional.pad(kwargs[shared], (0, count, 0, count))
        if name == "hf-bert":  # whoever reads the first word reads these, too
            mask = rest[0][:, :, :1].expand(-1, -1, x.shape[1], -1)
            rest[0] = torch.nn.functional.pad(mask, (0, count), value=True)
        if name == "hf-modernbert":
            mask, (cos, sin) = kwargs["attention_mask"], kwargs["position_embeddings"]
            mask = torch.cat([mask, mask.any(dim=2, keepdim=True).expand(-1, -1, count, -1)], dim=2)
            kwargs["attention_mask"] = torch.nn.functional.pad(mask, (0, count), value=True)
            still = cos.new_zeros(len(cos), count, cos.shape[2])
            kwargs["position_embeddings"] = torch.cat([cos, still + 1], dim=1), torch.cat([sin, still], dim=1)
        return (x, *rest), kwargs

    def shorten(_, __, output):
        kept, extra = output[:, :-count], output[:, -count:]
        return extra.mean(dim=1, keepdim=True).expand_as(kept) if pool else kept

    starts = [blocks[layer] for layer in layers]
    for block in blocks if stay else starts:
        block.register_forward_pre_hook(lengthen, with_kwargs=True)
        if name == "beit":
            bias = block.attn._get_rel_pos_bias()
            block.attn._get_rel_pos_bias = lambda b=bias: torch.nn.functional.pad(b, (0, count, 0, count))
        if name == "relpos":
            bias = block.attn.rel_pos.get_bias()
            block.attn.rel_pos.get_bias = lambda b=bias: torch.nn.functional.pad(b, (0, count, 0, count))
        if not stay:
            block.register_forward_hook(shorten)
    if stay:
        tower = tower_of(network)
        (family_of(tower).norm(tower) or blocks[-1]).register_forward_hook(shorten)


@joining
@pytest.mark.parametrize("pool", [False, True], ids=["read-as-before", "read-the-prompts"])
def test_tokens_join_before_the_first_block_without_a_position(name, pool):
    network, provider = prompted(name, layers=(), length=0, tokens=4, pool=pool)
    plain = network_of(name)
    unprompted = answer(plain, name)
    literally(name, plain, provider.tokens.detach(), [0], pool)
    expected = answer(plain, name)
    assert (expected - unprompted).abs().max() > 1e-3
    assert_close(answer(network, name), expected, rtol=0, atol=1e-6)


@joining
def test_appended_tokens_join_a_block_and_leave_after_it(name):
    network, provider = prompted(name, layers=(0, 2), length=0, appended=4)
    plain = network_of(name)
    literally(name, plain, provider.appended.detach(), [0, 2], stay=False)
    assert_close(answer(network, name), answer(plain, name), rtol=0, atol=1e-6)


@joining
def test_tokens_prefixes_and_appended_tokens_work_together(name):
    network, provider = prompted(name, layers=(1,), tokens=2, appended=3)
    answer(network, name).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in (provider.prefix, provider.tokens, provider.appended))


@every
def test_the_query_may_be_what_stands_for_the_image_after_a_block(name):
    plain, seen = network_of(name), []
    blocks_of(plain)[1].register_forward_hook(lambda _, __, output: seen.append(output))
    answer(plain, name)
    network, provider = prompted(name, query_layer=-2)
    answer(network, name)
    tokens = seen[0].flatten(1, -2)
    no_class_token = name in ("vit-avg", "vit-map", "vit-norms", "relpos", "swin")
    assert_close(provider.queries[0], tokens.mean(dim=1) if no_class_token else tokens[:, 0], rtol=0, atol=1e-10)


# ---------------------------------------------------------------------- checkpoints of activations, wrong set-ups


@pytest.mark.parametrize("name", ["vit-avg", "parallel", "eva", "beit", "swin"])
def test_gradient_checkpointing_gives_the_same_gradients(name):
    gradients = []
    for enable in (False, True):
        network, provider = prompted(name, layers=(0, 1))
        network.set_grad_checkpointing(enable)
        gradients += torch.autograd.grad(answer(network, name).square().sum(), provider.prefix)
    assert_close(gradients[0], gradients[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["swin", "hf-llama"])
def test_tokens_are_refused_where_they_have_no_place(name):
    with pytest.raises(ValueError, match=r"no sequence that prompt tokens could join .*\(`L2P\(form=\"prefix\"\)`"):
        prompted(name, layers=(), tokens=2)


def test_layers_beyond_the_last_stage_of_a_swin_are_refused():
    with pytest.raises(ValueError, match=r"prompt layers \[3\] do not exist: the ViT has 3 blocks"):
        prompted("swin", layers=(3,))


@pytest.mark.parametrize("query_layer", [None, -2])
@pytest.mark.parametrize(
    "name", ["hf-vit", *(pytest.param(n, marks=pytest.mark.slow) for n in ("eva", "swin", "torchvision"))]
)
@torch.no_grad()
def test_a_graph_of_a_prompted_network_is_made_as_of_any_other(name, query_layer):
    network, _ = prompted(name, layers=(0, 1), query_layer=query_layer)
    args, kwargs = inputs_of(name)
    graph = torch.export.export(network, args, kwargs).module()
    assert_close(logits_of(graph(*args, **kwargs)), answer(network, name), rtol=0, atol=1e-10)
