"""Prompts in both towers of CLIP against loops that are typed from the method's description."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F
from conformance.modules import TINY_CLIP, tiny_clip
from tiny import shaken
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import clip_towers
from lightning_cl.nn.class_texts import clip_tokens, trimmed
from lightning_cl.nn.clip_prompts import CLIPPrompts
from lightning_cl.nn.clip_towers import check_text_tower, check_vision_tower, encode_images, encode_texts, run_block

MODES = ("replace", "accumulate", "accumulate_same")
NAMES = ["apple.", "aquarium fish.", "sweet pepper.", "man."]
LAYERS, COUNT = 3, 2


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return shaken(tiny_clip().double().eval()).requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    return torch.randn(5, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def prompts(depth=LAYERS, count=COUNT):
    torch.manual_seed(2)
    return torch.randn(depth, count, 32, dtype=torch.float64)


def tokens(context=16):
    """As open_clip gives them: padded to the whole context."""
    return open_clip.SimpleTokenizer(context_length=context)(NAMES)


# ---------------------------------------------------------------------- references


def text_loop(clip, ids, g, mode):
    """One class after the other, over the whole padded context, with the model's own blocks and mask."""
    found = []
    for row in ids:
        x = clip.token_embedding(row[None])
        k = g.shape[1]
        x = torch.cat([x[:, :1], g[0][None], x[:, 1:]], dim=1)[:, : len(row)]  # what falls off is padding
        x = x + clip.positional_embedding[: x.shape[1]]
        have = k
        for layer, block in enumerate(clip.transformer.resblocks):
            if 0 < layer < len(g):
                before, kept, after = x[:, :1], x[:, 1 : 1 + have], x[:, 1 + have :]
                inserted = {
                    "replace": [g[layer][None]],
                    "accumulate": [kept, g[layer][None]],
                    "accumulate_same": [g[i][None] for i in range(layer + 1)],
                }[mode]
                x = torch.cat([before, *inserted, after], dim=1)
                have = x.shape[1] - 1 - after.shape[1]
            mask = torch.full((x.shape[1], x.shape[1]), -torch.inf, dtype=x.dtype).triu(1)
            x = block(x, attn_mask=mask)
        end = int((row == 49407).nonzero()[0]) + have
        found.append(F.normalize(clip.ln_final(x)[0, end] @ clip.text_projection, dim=0))
    return torch.stack(found)


def image_loop(visual, images, v, mode):
    found = []
    for image in images:
        x = visual.conv1(image[None]).reshape(1, visual.conv1.out_channels, -1).permute(0, 2, 1)
        x = torch.cat([visual.class_embedding[None, None], x], dim=1) + visual.positional_embedding
        own = x.shape[1]
        x = visual.ln_pre(torch.cat([x, v[0][None]], dim=1))
        for layer, block in enumerate(visual.transformer.resblocks):
            if 0 < layer < len(v):
                tail = {
                    "replace": [v[layer][None]],
                    "accumulate": [x[:, own:], v[layer][None]],
                    "accumulate_same": [v[: layer + 1].reshape(1, -1, v.shape[-1])],
                }[mode]
                x = torch.cat([x[:, :own], *tail], dim=1)
            x = block(x)
        found.append(visual.ln_post(x[0, 0]) @ visual.proj)
    return torch.stack(found)


@pytest.mark.parametrize("depth", [1, 2, LAYERS])
@pytest.mark.parametrize("mode", MODES)
def test_the_text_tower_is_that_of_the_loop(clip, mode, depth):
    found = encode_texts(clip, clip_tokens(NAMES, 16, COUNT), prompts(depth), mode)
    assert_close(found, text_loop(clip, tokens(), prompts(depth), mode), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("depth", [1, 2, LAYERS])
@pytest.mark.parametrize("mode", MODES)
def test_the_image_tower_is_that_of_the_loop(clip, images, mode, depth):
    found = encode_images(clip.visual, images, prompts(depth), mode)
    assert_close(found, image_loop(clip.visual, images, prompts(depth), mode), rtol=1e-9, atol=1e-10)


# ---------------------------------------------------------------------- plain CLIP


@pytest.mark.parametrize("none", [None, "empty"])
def test_without_prompts_it_is_plain_clip(clip, images, none):
    g = None if none is None else prompts(count=0)
    assert_close(encode_images(clip.visual, images, g), clip.encode_image(images), rtol=1e-9, atol=1e-9)
    expected = clip.encode_text(tokens(), normalize=True)
    assert_close(encode_texts(clip, clip_tokens(NAMES, 16), g), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("part", ["layer scale", "quick gelu", "custom blocks", "text by itself"])
def test_other_kinds_of_blocks_give_what_open_clip_gives(part, images):
    vision, text = dict(TINY_CLIP["vision_cfg"]), dict(TINY_CLIP["text_cfg"])
    options, kind = {}, open_clip.CLIP
    if part == "layer scale":
        vision["ls_init_value"] = text["ls_init_value"] = 0.3
    elif part == "quick gelu":
        options["quick_gelu"] = True
    elif part == "custom blocks":
        vision["qk_norm"] = text["scale_attn"] = True
    else:
        kind = open_clip.CustomTextCLIP
    torch.manual_seed(0)
    clip = kind(**{**TINY_CLIP, "vision_cfg": vision, "text_cfg": text, **options})
    clip = shaken(clip.double().eval()).requires_grad_(False)
    check_text_tower(clip)
    check_vision_tower(clip.visual)
    assert_close(encode_images(clip.visual, images), clip.encode_image(images), rtol=1e-9, atol=1e-9)
    expected = clip.encode_text(tokens(), normalize=True)
    assert_close(encode_texts(clip, clip_tokens(NAMES, 16)), expected, rtol=1e-9, atol=1e-9)


def test_prompts_of_zeros_are_not_plain_clip(clip, images):
    zeros = torch.zeros(LAYERS, COUNT, 32, dtype=torch.float64)
    assert (encode_images(clip.visual, images, zeros) - clip.encode_image(images)).abs().max() > 1e-3
    known = clip.encode_text(tokens(), normalize=True)
    assert (encode_texts(clip, clip_tokens(NAMES, 16), zeros) * known).sum(1).max() < 0.999


# ---------------------------------------------------------------------- what does not matter, and what does


@pytest.mark.parametrize("mode", MODES)
def test_trimmed_equals_untrimmed_and_one_by_one_equals_together(clip, mode):
    whole, g = F.pad(clip_tokens(NAMES, 16), (0, 4)), prompts()
    expected = encode_texts(clip, whole, g, mode)
    assert_close(encode_texts(clip, trimmed(whole), g, mode), expected, rtol=1e-9, atol=1e-10)
    alone = torch.cat([encode_texts(clip, trimmed(row[None]), g, mode) for row in whole])
    assert_close(alone, expected, rtol=1e-9, atol=1e-10)
    assert_close(expected.norm(dim=1), torch.ones(len(NAMES), dtype=torch.float64))
    order = torch.tensor([2, 0, 3, 1])
    assert_close(encode_texts(clip, whole[order], g, mode), expected[order], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_an_image_is_alone_in_its_batch(clip, images, mode):
    together = encode_images(clip.visual, images, prompts(), mode)
    alone = torch.cat([encode_images(clip.visual, image[None], prompts(), mode) for image in images])
    assert_close(alone, together, rtol=1e-9, atol=1e-10)


def lengths(monkeypatch, encode):
    """Tokens that reach each block."""
    seen = []

    def watched(block, x, *args, **kwargs):
        seen.append(x.shape[1])
        return run_block(block, x, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(clip_towers, "run_block", watched)
        encode()
    return seen


@pytest.mark.parametrize(
    ("mode", "depth", "vision", "text"),
    [
        ("accumulate", 3, [7, 9, 11], [2, 4, 6]),
        ("accumulate", 1, [7, 7, 7], [2, 2, 2]),
        ("accumulate", 2, [7, 9, 9], [2, 4, 4]),
        ("accumulate_same", 3, [7, 9, 11], [2, 4, 6]),
        ("replace", 3, [7, 7, 7], [2, 2, 2]),
    ],
)
def test_how_many_tokens_reach_each_block(clip, images, monkeypatch, mode, depth, vision, text):
    g, ids = prompts(depth), clip_tokens(NAMES, 16)
    assert lengths(monkeypatch, lambda: encode_images(clip.visual, images, g, mode)) == vision  # 5 of its own
    found = lengths(monkeypatch, lambda: encode_texts(clip, ids, g, mode))
    assert [length - ids.shape[1] for length in found] == text


@pytest.mark.parametrize("mode", MODES)
def test_every_layer_gets_a_gradient_and_no_other_does(clip, images, mode):
    own = CLIPPrompts(COUNT, LAYERS, 32, 32, mode, mode).double()
    texts = encode_texts(clip, clip_tokens(NAMES, 16), own.language, mode)
    (texts[0] @ texts[1]).backward()
    assert own.projection.weight.grad is None
    assert bool((own.language.grad.abs().amax((1, 2)) > 1e-9).all())
    own.language.grad = None
    encode_images(clip.visual, images, own.vision(), mode)[:, 0].sum().backward()
    assert bool((own.language.grad.abs().amax((1, 2)) > 1e-9).all())
    assert bool(own.projection.weight.grad.abs().sum() > 0)
    assert all(p.grad is None for p in clip.parameters())


def test_words_do_not_reach_the_prompts(clip, monkeypatch):
    seen = []

    def watched(block, x, *args, **kwargs):
        seen.append(x[:, 1 : 1 + COUNT])
        return run_block(block, x, *args, **kwargs)

    monkeypatch.setattr(clip_towers, "run_block", watched)
    encode_texts(clip, clip_tokens(NAMES, 16), prompts(depth=1))
    assert len(seen) == LAYERS
    for hidden in seen:
        assert_close(hidden, hidden[:1].expand_as(hidden), rtol=1e-9, atol=1e-10)


def test_each_prompt_of_layer_0_matters_in_its_place(clip):
    swapped = prompts()
    swapped[0] = swapped[0].flip(0)
    ids = clip_tokens(NAMES, 16)
    assert (encode_texts(clip, ids, swapped) - encode_texts(clip, ids, prompts())).abs().max() > 1e-4


# ---------------------------------------------------------------------- what is refused


def altered(**changes):
    clip = tiny_clip()
    for name, value in changes.items():
        setattr(clip, name, value)
    return clip


def test_text_towers_without_a_causal_mask_are_refused():
    siglip = tiny_clip(text_cfg={**TINY_CLIP["text_cfg"], "no_causal_mask": True, "pool_type": "last"})
    with pytest.raises(ValueError, match=r"without a causal mask \(as SigLIP has\).*ViT-B-16-quickgelu"):
        check_text_tower(siglip)
    with pytest.raises(ValueError, match="without a causal mask"):
        check_text_tower(altered(attn_mask=torch.zeros(16, 16)))
    with pytest.raises(ValueError, match=r"is read at 'last', but prompts need the end token"):
        check_text_tower(altered(text_pool_type="last"))


def test_text_towers_of_another_make_are_refused():
    coca = open_clip.CustomTextCLIP(**{**TINY_CLIP, "text_cfg": {**TINY_CLIP["text_cfg"], "embed_cls": True}})
    with pytest.raises(ValueError, match=r"reads an extra class token \(as CoCa has\)"):
        check_text_tower(coca)

    class FromElsewhere(nn.Module):
        def __init__(self):
            super().__init__()
            self.text = nn.Linear(2, 2)

    with pytest.raises(ValueError, match=r"is a Linear without token_embedding, .*Hugging Face"):
        check_text_tower(FromElsewhere())


def test_image_towers_of_another_make_are_refused():
    with pytest.raises(ValueError, match=r"is a Linear, but vision prompts need open_clip's own VisionTransformer"):
        check_vision_tower(nn.Linear(2, 2))
    pooled = tiny_clip(vision_cfg={**TINY_CLIP["vision_cfg"], "pool_type": "avg"})
    with pytest.raises(ValueError, match=r"not read at its class token alone"):
        check_vision_tower(pooled.visual)
