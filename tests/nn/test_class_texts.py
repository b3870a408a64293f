from __future__ import annotations

import open_clip
import pytest
import torch
from conformance.modules import tiny_clip
from torch.testing import assert_close

from lightning_cl.nn import ClassMask, TextHead
from lightning_cl.nn.class_texts import (
    class_names,
    clip_tokens,
    ensemble,
    fill_templates,
    readable,
    text_logits,
    trimmed,
)
from lightning_cl.training.find_modules import find_head


def test_names_are_read_as_one_writes_them():
    assert readable("aquarium_fish") == "aquarium fish"
    assert class_names(["a_b", " c  d "], 2) == ("a b", "c d")


def test_names_that_make_no_classifier_are_refused():
    with pytest.raises(ValueError, match=r"there are 2 class names for 3 classes"):
        class_names(["a", "b"], 3)
    with pytest.raises(ValueError, match=r"the classes \[1\] have no name"):
        class_names(["a", "_"], 2)
    with pytest.raises(ValueError, match=r"the same name.*\{'crane': \[0, 2\]\}"):
        class_names(["crane", "b", "Crane"], 3)


def test_templates():
    assert fill_templates(["ant", "bee"], ["a {}.", "{}"]) == ["a ant.", "ant", "a bee.", "bee"]
    for wrong in (["a photo"], ["{} {}"], []):
        with pytest.raises(ValueError, match=r"write \{\} once in each"):
            fill_templates(["ant"], wrong)
    with pytest.raises(ValueError, match="give a list of templates"):
        fill_templates(["ant"], "a {}.")


def test_tokens_are_those_of_open_clip_trimmed():
    texts = ["apple.", "a photo of an aquarium fish.", "Sweet  Pepper"]
    expected = open_clip.SimpleTokenizer(context_length=20)(texts)
    found = clip_tokens(texts, 20)
    assert found.shape[1] == int(expected.argmax(1).max()) + 1
    assert torch.equal(found, trimmed(expected))
    assert not expected[:, found.shape[1] :].any()


def test_texts_that_do_not_fit_are_refused():
    text = "a photo of an aquarium fish."  # 7 words and a full stop, start and end
    assert clip_tokens([text], 9, prompts=0).shape == (1, 9)
    with pytest.raises(ValueError, match=r"'a photo of an aquarium fish.' has 9 tokens and 3 prompts .* at most 11;"):
        clip_tokens(["ant", text], 11, prompts=3)


def test_templates_of_a_class_are_averaged_at_unit_length():
    features = torch.nn.functional.normalize(torch.randn(6, 4, dtype=torch.float64), dim=1)
    found = ensemble(features, 3)
    for c in range(2):
        mean = features[3 * c : 3 * c + 3].mean(0)
        assert_close(found[c], mean / mean.norm())
    assert ensemble(features, 1) is features


def test_the_head_is_found_masked_and_has_no_parameter():
    model = torch.nn.Module()
    model.net, model.head = tiny_clip(), TextHead(24, 6)
    assert find_head(model, 6) == ("head", model.head)
    assert list(model.head.parameters()) == []
    rows = torch.nn.functional.normalize(torch.randn(6, 24), dim=1)
    model.head.fill(rows, None)
    mask = ClassMask(6)
    mask.allow([1], [1, 3])
    logits = mask(model.head(torch.randn(5, 24)))
    assert (logits > -500).any(0).tolist() == [False, True, False, False, False, False]
    assert torch.equal(model.head.weight, rows)
    assert not model.head.state_dict()


def test_logits_are_cosines_in_full_precision():
    features, rows = torch.randn(5, 8) * 7, torch.nn.functional.normalize(torch.randn(3, 8), dim=1)
    expected = 100 * torch.nn.functional.cosine_similarity(features[:, None], rows[None], dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = text_logits(features, rows, 100.0)
    assert logits.dtype == torch.float32
    assert_close(logits, expected, rtol=1e-5, atol=1e-4)
    assert logits.abs().max() <= 100 + 1e-3
