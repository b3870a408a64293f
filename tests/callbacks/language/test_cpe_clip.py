"""CPE-CLIP in a module: what is read, what is trained, and by how much."""

from __future__ import annotations

import copy
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from conformance.modules import TINY_CLIP, CLIPSplitModule, PlainModule, tiny_clip
from lightning.pytorch import LightningModule
from safetensors import safe_open
from tiny import shaken, stream_info, task_of
from torch import nn
from torch.testing import assert_close

from lightning_cl import load_method, save_method
from lightning_cl.callbacks import CPECLIP
from lightning_cl.callbacks.language import text_features
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.models import CLIPClassifier
from lightning_cl.nn.clip_towers import encode_images, encode_texts
from lightning_cl.nn.parameter_versions import Remembered

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = ("apple", "man", "road", "sea", "aquarium_fish", "oak_tree", "bee", "bottle", "clock", "can")
CLASSES = 10
PROMPTS = "continual.parts.cpeclip.prompts"


def info(held=((0, 1, 2, 3, 4, 5), (6, 7), (8, 9))) -> StreamInfo:
    return StreamInfo(len(held), CLASSES, NAMES, held, "f" * 64)


class Own(LightningModule):
    """A stranger's module; float64, so that differences are differences."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.clip = shaken(tiny_clip().double())
        self.fc = nn.Linear(24, CLASSES).double()

    def forward(self, x: Any) -> Any:
        return self.fc(self.clip.encode_image(x))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self(batch[0]), batch[1])


def attached(task=0, **options) -> Any:
    module = Own()
    CPECLIP(**options).attach_once(module, info())
    module.log_dict = lambda *_: None
    start(module, task)
    return module


def start(module, index) -> None:
    module.on_task_start(task_of(info(), index))


def batch(classes, seed=0):
    labels = torch.tensor(classes)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(labels), 3, 16, 16, dtype=torch.float64, generator=generator), labels


def reference(module, images, classes, texts="{}.", text_mode="replace", vision_mode="accumulate"):
    """Logits of some classes, from whole padded texts, one class after the other."""
    prompts, tokenizer = module.prompts, open_clip.SimpleTokenizer(context_length=16)
    read = [texts.format(NAMES[c].replace("_", " ")) for c in classes]
    own = [encode_texts(module.clip, tokenizer(text)[:, :14], prompts.language, text_mode) for text in read]
    vision = None if prompts.projection is None else prompts.projection(prompts.language)
    features = encode_images(module.clip.visual, images, vision, vision_mode)
    return 100 * F.normalize(features, dim=1) @ torch.cat(own).T


def gradients(module):
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


# ---------------------------------------------------------------------- logits, loss and gradient


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"vision_prompts": False},
        {"text_mode": "accumulate", "vision_mode": "replace"},
        {"text_mode": "accumulate_same", "vision_mode": "accumulate_same", "template": "a {} on a photo."},
    ],
    ids=["published", "text", "swapped", "same"],
)
def test_logits_loss_and_gradient_of_a_session(options):
    module = attached(task=1, num_prompts=2, regularization="none", **options).train()
    images, labels = batch([6, 7, 6, 6])
    logits = module(images)
    assert logits.gt(-500).any(0).nonzero().flatten().tolist() == [6, 7]
    modes = {name: options[name] for name in ("text_mode", "vision_mode") if name in options}
    expected = reference(module, images, (6, 7), options.get("template", "{}."), **modes)
    assert_close(logits[:, 6:8], expected, rtol=1e-8, atol=1e-8)
    module.training_step((images, labels), 0).backward()
    found = gradients(module)
    assert set(found) == {f"{PROMPTS}.{name}" for name, _ in module.prompts.named_parameters()}
    module.zero_grad()
    # As published: the texts of all seen classes, with the logits of the earlier ones overwritten.
    everything = reference(module, images, range(8), options.get("template", "{}."), **modes)
    masked = everything.index_fill(1, torch.arange(6), -9999.0)
    F.cross_entropy(masked, labels).backward()
    for name, gradient in gradients(module).items():
        assert_close(found[name], gradient, rtol=1e-7, atol=1e-9, msg=name)
    assert bool((found[f"{PROMPTS}.language"].abs().amax((1, 2)) > 1e-9).all())  # of every layer


def test_only_texts_of_the_session_are_read_and_once_a_step(monkeypatch):
    read, encode = [], text_features.encode_texts

    def watched(clip, tokens, *args):
        read.append(tuple(tokens.shape))
        return encode(clip, tokens, *args)

    monkeypatch.setattr(text_features, "encode_texts", watched)

    class Twice(Own):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) + super().training_step(batch, batch_idx)

    module = Twice()
    CPECLIP().attach_once(module, info())
    module.log_dict = lambda *_: None
    module.train()
    for task, classes in ((0, (0, 5)), (1, (6, 7)), (2, (8, 9))):
        start(module, task)
        for step in range(2):
            module.training_step(batch(classes), step).backward()
    assert read == [(6, 5)] * 2 + [(2, 4)] * 4  # "aquarium fish." and "oak tree." are one word longer
    read.clear()
    module.eval()
    with torch.no_grad():
        for _ in range(3):
            module(batch((0, 1))[0])
    assert read == [(CLASSES, 5)]
    with torch.no_grad():
        module.prompts.language.mul_(1.1)
        module(batch((0, 1))[0])
    assert len(read) == 2


def test_remembered_features_are_those_of_now_bit_for_bit():
    module = attached(task=2).eval()
    images, _ = batch((0, 1, 2))
    with torch.no_grad():
        first = module(images)
        assert torch.equal(module(images), first)
        module.continual.parts.cpeclip.texts.known = Remembered()
        assert torch.equal(module(images), first)
        assert_close(first, reference(module, images, range(CLASSES)), rtol=1e-8, atol=1e-8)
        weight = module.clip.token_embedding.weight
        weight.add_(torch.randn_like(weight), alpha=0.1)  # as a user's checkpoint does
        assert not torch.equal(module(images), first)
        assert_close(module(images), reference(module, images, range(CLASSES)), rtol=1e-8, atol=1e-8)
    with torch.inference_mode():
        inside = module(images)
    assert_close(module(images).detach(), inside, rtol=1e-9, atol=1e-9)
    module(images)[:, 0].sum().backward()  # with gradient also in eval mode
    assert bool(module.prompts.language.grad.any())


@torch.no_grad()
def test_a_copy_remembers_nothing():
    module, images = attached(task=2).eval(), batch((0, 1, 2))[0]
    module(images)
    twin = copy.deepcopy(module)  # whose weights count their writes from 0 again
    texts = twin.continual.parts.cpeclip.texts
    assert texts.clip is twin.clip
    twin.prompts.language.mul_(1.5)
    assert_close(twin(images), reference(twin, images, range(CLASSES)), rtol=1e-8, atol=1e-8)
    classifier = CLIPClassifier(TINY_CLIP, None, class_names=NAMES)
    classifier(images.float())
    assert copy.deepcopy(classifier).head.made_from is None


def test_classes_that_never_came_are_not_predicted():
    module = attached(task=1).eval()
    with torch.no_grad():
        logits = module(batch(range(10))[0])
    assert logits.gt(-500).all(0).tolist() == [True] * 8 + [False] * 2
    assert bool((logits[:, :8].abs() <= 100 + 1e-9).all())


def test_a_head_that_is_larger_than_the_stream_and_names_in_another_order():
    module = Own()
    module.fc = nn.Linear(24, 12).double()
    CPECLIP(head="fc", train_mask="all").attach_once(module, info())
    module.train()
    images = batch(range(4))[0]
    logits = module(images)
    assert logits.gt(-500).all(0).tolist() == [True] * 10 + [False] * 2
    other = Own()
    CPECLIP(class_names=NAMES[::-1]).attach_once(other, info())
    other.prompts.load_state_dict(module.prompts.state_dict())
    assert_close(other.train()(images)[:, :10].flip(1), logits[:, :10], rtol=1e-8, atol=1e-8)


def test_the_loss_is_scaled_and_what_the_user_logs_is_not():
    module, free = attached(task=1), attached(task=1, regularization="none")
    free.prompts.load_state_dict(module.prompts.state_dict())
    share = 2 / 8
    for m in (module, free):
        m.train()
    data = batch((6, 7, 7))
    found, plain = module.training_step(data, 0), free.training_step(data, 0)
    assert_close(found, share * plain)
    assert_close(F.cross_entropy(module(data[0]), data[1]), plain)
    found.backward()
    plain.backward()
    for name, gradient in gradients(module).items():
        assert_close(gradient, share * gradients(free)[name], rtol=1e-9, atol=1e-12)

    class AsDictionary(Own):
        def training_step(self, batch, batch_idx):
            return {"loss": super().training_step(batch, batch_idx), "other": 3}

    third = AsDictionary()
    CPECLIP().attach_once(third, info())
    third.log_dict = lambda *_: None
    third.prompts.load_state_dict(module.prompts.state_dict())
    start(third, 1)
    output = third.train().training_step(data, 0)
    assert_close(output["loss"], found)
    assert output["other"] == 3


def test_sixteen_bits_give_the_same_answers_and_logits_of_thirty_two():
    module = attached(task=2).float().eval()
    images = batch(range(10), seed=4)[0].float()
    with torch.no_grad():
        expected = module(images)
        with torch.autocast("cpu", torch.bfloat16):
            logits = module(images)
    assert logits.dtype == torch.float32
    assert_close(logits, expected, rtol=0, atol=3.0)  # of 100
    assert (logits.argmax(1) == expected.argmax(1)).float().mean() >= 0.9


def test_it_learns():
    module = attached(task=0).train()
    data = batch([0, 1, 2, 3] * 5)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for step in range(100):
        optimizer.zero_grad()
        loss = module.training_step(data, step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.prompts.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_a_shipped_file_holds_the_trained_numbers_and_answers_the_same(tmp_path):
    module, file = attached(task=1), tmp_path / "method.safetensors"
    save_method(file, module)
    with safe_open(file, "pt") as stored:
        names = {name for name in stored.keys() if name.startswith((PROMPTS, "fc."))}  # noqa: SIM118
        assert "aquarium_fish" in stored.metadata()["lightning_cl"]
    trained = {f"{PROMPTS}.{name}" for name in ("language", "projection.weight", "projection.bias")}
    assert names - {"fc.weight", "fc.bias"} == {*trained, f"{PROMPTS}.task_counter"}
    images = batch(range(3))[0]
    loaded = load_method(file, Own(), [CPECLIP()])
    assert torch.equal(loaded.eval()(images), module.eval()(images))
    other = Own()
    nn.init.ones_(other.clip.positional_embedding)
    with pytest.raises(ValueError, match="belongs to a base model whose frozen weights have the fingerprint"):
        load_method(file, other, [CPECLIP()])


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_prompts": 0}, "`num_prompts` is 0; give at least 1"),
        ({"prompt_depth": 0}, "`prompt_depth` is 0"),
        ({"text_mode": "acumulate"}, '`text_mode` is \'acumulate\'; give "replace", "accumulate"'),
        ({"vision_mode": "none"}, "`vision_mode` is 'none'"),
        ({"regularization": "ema"}, '`regularization` is \'ema\'; give "balance" or "none"'),
        ({"logit_scale": 0.0}, "`logit_scale` is 0.0; give a number above 0"),
        ({"template": "a photo"}, r"write \{\} once in each"),
        ({"train_mask": "old"}, "`train_mask` is 'old'"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        CPECLIP(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_depth": 4}, "`prompt_depth` is 4, but the shallower tower has 3 layers"),
        ({"num_prompts": 12}, r"'aquarium fish.' has 5 tokens and 12 prompts .* reads at most 16"),
        ({"class_names": ["a", "b"]}, "there are 2 class names for 10 classes"),
        ({"class_names": ["crane"] * 10}, "have the same name"),
        ({"backbone": "fc"}, "`backbone='fc'` is a Linear; CLIP methods need a model of open_clip"),
        ({"backbone": "clp"}, "did you mean clip"),
    ],
)
def test_what_does_not_fit_the_module(options, message):
    module = Own()
    with pytest.raises(ValueError, match=message):
        CPECLIP(**options).attach_once(module, info())
    assert all(p.requires_grad for p in module.parameters())


def test_modules_that_it_cannot_work_on():
    with pytest.raises(ValueError, match=r"no open_clip model was found.*net \(VisionTransformer\).*`CLIPClassifier`"):
        CPECLIP().attach_once(PlainModule(), stream_info(3, 6))
    two = CLIPSplitModule()
    two.other = tiny_clip()
    with pytest.raises(ValueError, match=r"several open_clip models: net.clip, other; choose one"):
        CPECLIP().attach_once(two, stream_info(3, 6))
    wrong = Own()
    wrong.fc = nn.Linear(23, CLASSES)
    with pytest.raises(ValueError, match=r"the head `fc` reads 23 features, but `clip` gives 24; name the layer"):
        CPECLIP().attach_once(wrong, info())
    siglip = Own()
    siglip.clip.attn_mask = None
    with pytest.raises(ValueError, match="without a causal mask"):
        CPECLIP().attach_once(siglip, info())
    pooled = Own()
    pooled.clip = open_clip.CLIP(**{**TINY_CLIP, "vision_cfg": {**TINY_CLIP["vision_cfg"], "pool_type": "avg"}})
    with pytest.raises(ValueError, match="not read at its class token"):
        CPECLIP().attach_once(pooled, info())
    CPECLIP(vision_prompts=False).attach_once(pooled, info())
