"""PromptSRC and MSGCoOp: answers and terms from open_clip's own towers, the average, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_cl.callbacks import MSGCoOp, PromptSRC
from lightning_cl.nn.clip_towers import encode_images, encode_texts
from lightning_cl.nn.prompt_terms import epoch_weights

from .test_cpe_clip import NAMES, Own, batch, info, start

pytestmark = pytest.mark.filterwarnings("ignore")
TEMPLATES = ("a photo of a {}.", "a {}.")


def attached(method: Any, task: int = 1) -> Any:
    module = Own()
    method.attach_once(module, info())
    module.log_dict = lambda *_: None
    start(module, task)
    part(module).start_run(module)
    return module.train()


def part(module: Any) -> Any:
    return next(iter(module.continual.parts.values()))


def own_features(module: Any, texts: list[str]) -> Any:
    """Of texts in open_clip's own tower, before any scaling."""
    tokens = open_clip.SimpleTokenizer(context_length=16)(texts)
    return module.clip.encode_text(tokens)


def terms_of(module: Any, images: Any, labels: Any) -> Any:
    found: dict[str, Any] = {}
    collect = type(module).collect_losses

    def collected(self: Any) -> None:
        collect(self)
        found.update(self.continual.loss_terms)

    type(module).collect_losses = collected
    try:
        loss = module.training_step((images, labels), 0)
    finally:
        type(module).collect_losses = collect
    return loss, found


def test_the_terms_of_prompt_src() -> None:
    module = attached(PromptSRC(num_prompts=2, frozen_templates=TEMPLATES))
    prompts, images, labels = part(module).prompts, *batch([6, 7, 6])
    loss, found = terms_of(module, images, labels)
    frozen_image = F.normalize(_plain_images(module, images), dim=1)
    texts = [t.format(NAMES[c]) for c in (6, 7) for t in TEMPLATES]
    frozen_text = F.normalize(own_features(module, texts).unflatten(0, (2, 2)).mean(1), dim=1)
    text = encode_texts(module.clip, _tokens(module, [6, 7]), prompts.language)
    image = F.normalize(encode_images(module.clip.visual, images, prompts.image, "replace"), dim=1)
    z, z0 = 100 * image @ text.T, 100 * frozen_image @ frozen_text.T
    p0 = z0.softmax(1)
    expected = {
        "prompt_src_text": 25 * (text - frozen_text).abs().mean(),
        "prompt_src_image": 10 * (image - frozen_image).abs().mean(),
        "prompt_src_logits": (p0 * (p0.log() - z.log_softmax(1))).sum() / 6,
    }
    for name, value in expected.items():
        assert_close(found[name], value, rtol=1e-8, atol=1e-10, msg=name)
        assert value.item() > 1e-4
    assert_close(loss, F.cross_entropy(z, labels - 6) + sum(expected.values()), rtol=1e-8, atol=1e-9)
    loss.backward()
    trained = {name for name, p in module.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert trained == {f"continual.parts.promptsrc.prompts.{name}" for name in ("language", "image")}


def _tokens(module: Any, classes: list[int]) -> Any:
    return open_clip.SimpleTokenizer(context_length=16)([f"{NAMES[c].replace('_', ' ')}." for c in classes])[:, :14]


def _plain_images(module: Any, images: Any) -> Any:
    with part(module).prompts.without():
        return module.clip.encode_image(images)


def test_prompts_begin_with_words_and_noise() -> None:
    module = attached(PromptSRC(num_prompts=6, frozen_templates=TEMPLATES))
    language = part(module).prompts.language.detach()
    words = open_clip.SimpleTokenizer(context_length=16)(["a photo of a"])[0, 1:5]
    assert_close(language[0, :4], module.clip.token_embedding(words).detach(), rtol=0, atol=1e-7)
    assert language[1:].std().item() == pytest.approx(0.02, rel=0.2)
    assert part(module).prompts.image.shape == (3, 6, 32)


def test_the_prompts_become_their_average_over_the_epochs() -> None:
    """Three epochs of two batches: only the last batch of each counts, and the weights are Gaussian."""
    module = attached(PromptSRC(num_prompts=2, frozen_templates=TEMPLATES, center=2 / 3, spread=0.25))
    task = SimpleNamespace(epochs=3, first_epoch=4)
    trainer: Any = SimpleNamespace(num_training_batches=2, datamodule=SimpleNamespace(task=task))
    own, weights, expected = part(module), epoch_weights(3, 2, 0.75), 0.0
    holder = SimpleNamespace(trainer=trainer)
    for epoch in range(3):
        for index in range(2):
            with torch.no_grad():
                own.prompts.language.add_(1.0 + epoch)
            trainer.current_epoch, trainer.fit_loop = 4 + epoch, SimpleNamespace(batch_idx=index)
            own.after_step(holder, None)
        expected = expected + weights[epoch] * own.prompts.language.detach()
    own.end_task(module, None)
    assert_close(own.prompts.language.detach(), expected)
    own.start_task(module, SimpleNamespace(index=2))
    assert own.averaged.item() == 0
    before = own.prompts.language.detach().clone()
    own.end_task(module, None)  # no epoch came to its end
    assert torch.equal(own.prompts.language, before)


def test_the_answer_and_the_terms_of_msg_coop() -> None:
    described = {"bee": ["a bee, an insect with wings", "a small bee"]}
    method = MSGCoOp(contexts=3, num_prompts=2, anchor_weight=0.7, diversity_weight=0.4, descriptions=described)
    module = attached(method)
    contexts, images, labels = part(module).prompts.language, *batch([6, 7, 6])
    loss, found = terms_of(module, images, labels)
    tokens = _tokens(module, [6, 7])
    each = torch.stack([encode_texts(module.clip, tokens, own[None], unit=False) for own in contexts])
    image = F.normalize(module.clip.encode_image(images), dim=1)
    z = torch.stack([100 * image @ F.normalize(own, dim=1).T for own in each]).mean(0)
    bee = F.normalize(own_features(module, described["bee"]), dim=1).mean(0)
    anchors = torch.stack([bee, own_features(module, ["a photo of a bottle."])[0]])
    anchor = 0.7 * (1 - F.cosine_similarity(each.mean(0), anchors).mean())
    pairs = [F.cosine_similarity(each[i], each[j]) ** 2 for i, j in ((0, 1), (0, 2), (1, 2))]
    diversity = 0.4 * torch.stack(pairs).mean()
    assert_close(found["msg_coop_anchor"], anchor, rtol=1e-8, atol=1e-10)
    assert_close(found["msg_coop_diversity"], diversity, rtol=1e-8, atol=1e-10)
    assert_close(loss, F.cross_entropy(z, labels - 6) + anchor + diversity, rtol=1e-8, atol=1e-9)
    (gradient,) = torch.autograd.grad(found["msg_coop_diversity"], [contexts])
    assert bool((gradient.abs().amax((1, 2)) > 1e-9).all())  # no two begin alike


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PromptSRC(spread=0.0), "`spread` is 0.0; give a number above 0"),
        (lambda: PromptSRC(frozen_templates=["a photo"]), "no place for the class name"),
        (lambda: MSGCoOp(contexts=0), "`contexts` is 0; give at least 1"),
        (lambda: attached(MSGCoOp(descriptions={"wolf": ["a wolf"]})), r"`descriptions` has \['wolf'\]"),
        (lambda: attached(PromptSRC(num_prompts=14, frozen_templates=TEMPLATES)), "reads at most 16"),
    ],
)
def test_what_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
