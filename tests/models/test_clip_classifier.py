"""CLIP by class names: what open_clip says, with weights that are asked for, and under the methods of a stream."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
import torch.nn.functional as F
from conformance.modules import TINY_CLIP
from conformance.runs import in_forked_processes
from conformance.streams import NUM_CLASSES, make_stream
from lightning.pytorch import Trainer, seed_everything
from safetensors.torch import save_file
from torch.testing import assert_close

import lightning_cl
from lightning_cl.callbacks import (
    AnytimeEvaluation,
    ContinualCallback,
    ContinualEvaluation,
    ExperienceReplay,
    FineTuning,
    ProtocolGuard,
)
from lightning_cl.cli import main
from lightning_cl.models import CLIPClassifier, clip_classifier

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = ["apple", "aquarium_fish", "man", "road", "sea", "oak_tree"]
TEMPLATES = ("a {}.", "a photo of a {}.")


def model(**options):
    seed_everything(0, verbose=False)
    built = CLIPClassifier(**{"model": TINY_CLIP, "pretrained": None, "num_classes": NUM_CLASSES, **options})
    with torch.no_grad():
        for parameter in built.net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return built


def images(count=5):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def fit(module, *callbacks, **options):
    trainer = Trainer(
        max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[*callbacks], **{"devices": 1, **options},
    )  # fmt: skip
    trainer.fit(module, datamodule=make_stream())
    return trainer


# ---------------------------------------------------------------------- predictions


@pytest.mark.parametrize("templates", [TEMPLATES[:1], TEMPLATES])
@torch.no_grad()
def test_logits_are_those_of_open_clip(templates):
    module = model(class_names=NAMES, templates=templates).eval()
    tokenizer, rows = open_clip.SimpleTokenizer(context_length=16), []
    for name in NAMES:
        texts = [t.format(name.replace("_", " ")) for t in templates]
        rows.append(F.normalize(module.net.encode_text(tokenizer(texts), normalize=True).mean(0), dim=0))
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN)[:, None, None]
    std = torch.tensor(open_clip.OPENAI_DATASET_STD)[:, None, None]
    features = module.net.encode_image((images() - mean) / std, normalize=True)
    expected = module.net.logit_scale.exp() * features @ torch.stack(rows).T
    assert_close(module(images()), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_grey_images_are_repeated_and_images_can_be_taken_as_they_are():
    module = model(class_names=NAMES, normalize=False).eval()
    grey = images()[:, :1]
    assert torch.equal(module(grey), module(grey.expand(-1, 3, -1, -1)))
    plain = model(class_names=NAMES).eval()
    assert_close(plain(images()), module((images() - module.image_mean) / module.image_std))


@torch.no_grad()
def test_a_text_tower_of_another_kind_is_read_as_open_clip_reads_it():
    config = {**TINY_CLIP, "text_cfg": {**TINY_CLIP["text_cfg"], "no_causal_mask": True}}
    module = model(model=config, class_names=NAMES, templates=["{}"]).eval()
    tokens = open_clip.SimpleTokenizer(context_length=16)([name.replace("_", " ") for name in NAMES])
    module(images())
    assert_close(module.head.weight, module.net.encode_text(tokens, normalize=True), rtol=1e-5, atol=1e-6)


def test_without_names_there_is_no_classifier():
    with pytest.raises(ValueError, match=r"class names are not known.*`class_names=\[\.\.\.\]`"):
        model()(images())


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"the images have 8 x 16 pixels, but the model reads 16 x 16; .*_size=16"):
        model(class_names=NAMES)(torch.rand(2, 3, 8, 16))
    with pytest.raises(ValueError, match="have the same name"):
        model(class_names=["a"] * 6)
    with pytest.raises(ValueError, match=r"2 class names for 6 classes"):
        model(class_names=["a", "b"])
    with pytest.raises(ValueError, match=r"write \{\} once in each"):
        model(templates=["a photo"])
    with pytest.raises(ValueError, match='`train` is \'some\'; give "none" or "all"'):
        model(train="some")
    with pytest.raises(ValueError, match=r"`num_classes` is None.*`CLIPClassifier\(num_classes="):
        model(num_classes=None)


# ---------------------------------------------------------------------- in a fit


def counted(monkeypatch):
    """Calls of the text tower, by number of texts."""
    calls, encode = [], clip_classifier.encode_texts

    def watched(clip, tokens, *args):
        calls.append(len(tokens))
        return encode(clip, tokens, *args)

    monkeypatch.setattr(clip_classifier, "encode_texts", watched)
    return calls


def test_the_frozen_reference_of_a_stream(monkeypatch):
    calls, module, evaluation = counted(monkeypatch), model(), ContinualEvaluation(report=False, print_table=False)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    fit(module, evaluation, ProtocolGuard(on_violation="error", probe=12, print_card=False))
    fit(module)  # a second time
    assert calls == [NUM_CLASSES]  # read once, from the stream's names
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())
    assert [name for name, p in module.named_parameters() if p.requires_grad] == ["net.logit_scale"]  # at a rate of 0
    assert torch.equal(evaluation.total > 0, torch.ones(3, 3, dtype=torch.bool).tril())


def test_the_frozen_reference_in_two_processes(tmp_path):
    def run(**options):
        evaluation = ContinualEvaluation(report=False, print_table=False)
        fit(model(), evaluation, **options)
        return evaluation.correct["class_il"]

    def rank():
        found = run(strategy="ddp", devices=2)
        torch.save(found, tmp_path / f"{torch.distributed.get_rank()}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    for rank_id in (0, 1):
        assert torch.equal(torch.load(tmp_path / f"{rank_id}.pt", weights_only=True), run())


class Rows(ContinualCallback):
    """The head's rows at every validation."""

    def __init__(self):
        self.rows = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.rows.append((pl_module.head.weight.clone(), pl_module._text_features().detach()))


def test_trained_towers_read_the_texts_anew_and_methods_compose():
    module, rows = model(train="all", lr=0.01), Rows()
    evaluation = ContinualEvaluation(report=False, print_table=False)
    method, replay = FineTuning(train_mask="seen"), ExperienceReplay(memory_size=12, batch_size=5)
    guard = ProtocolGuard(on_violation="error", probe=12, print_card=False)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    anytime = AnytimeEvaluation(every_n_samples=20, report=False)
    trainer = fit(module, method, replay, evaluation, anytime, guard, rows)
    assert trainer.global_step == 16
    for kept, now in rows.rows:
        assert_close(kept, now, rtol=0, atol=0)
    assert len({tuple(kept.flatten().tolist()) for kept, _ in rows.rows}) == len(rows.rows)
    moved = [name for name, p in module.named_parameters() if not torch.equal(p, before[name])]
    assert {"net.logit_scale", "net.text_projection", "net.visual.proj"} <= set(moved)


def test_a_trained_text_tower_has_the_gradient_of_the_plain_formula():
    module = model(train="all", class_names=NAMES, templates=["{}"]).double().train()
    labels = torch.tensor([0, 1, 2, 3, 5])
    module.trainer = None
    F.cross_entropy(module(images().double()), labels).backward()
    found = {name: p.grad.clone() for name, p in module.net.named_parameters()}
    module.zero_grad()
    tokens = open_clip.SimpleTokenizer(context_length=16)([name.replace("_", " ") for name in NAMES])
    pixels = (images().double() - module.image_mean) / module.image_std
    logits, _ = module.net.get_logits(pixels, tokens)
    F.cross_entropy(logits, labels).backward()
    for name, p in module.net.named_parameters():
        assert_close(found[name], p.grad, rtol=1e-8, atol=1e-10, msg=name)


def test_a_checkpoint_answers_where_names_are_unknown(tmp_path):
    module = model()
    fit(module, FineTuning()).save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    restored = lightning_cl.restore(
        tmp_path / "last.ckpt", CLIPClassifier(TINY_CLIP, None, NUM_CLASSES), [FineTuning()]
    )
    with torch.no_grad():
        assert torch.equal(restored(images()), module.eval()(images()))


# ---------------------------------------------------------------------- weights


@pytest.fixture
def stored(tmp_path):
    """A configuration and weights as files."""
    (tmp_path / "config.json").write_text(json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": {"mean": [0.5] * 3}}))
    torch.manual_seed(3)
    weights = open_clip.CLIP(**TINY_CLIP).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "weights.safetensors")
    return tmp_path, weights


def test_a_model_from_files(stored):
    folder, weights = stored
    module = CLIPClassifier(str(folder / "config.json"), str(folder / "weights.safetensors"), 2)
    assert all(torch.equal(value, weights[name]) for name, value in module.net.state_dict().items())
    assert module.image_mean.flatten().tolist() == [0.5] * 3
    with pytest.raises(ValueError, match=r"there is no file .*nowhere.pt"):
        CLIPClassifier(TINY_CLIP, str(folder / "nowhere.pt"), 2)
    with pytest.raises(ValueError, match=r"there is no file .*none.json"):
        CLIPClassifier(str(folder / "none.json"), None, 2)
    with pytest.raises(ValueError, match=r"do not fit the configuration"):
        CLIPClassifier({**TINY_CLIP, "embed_dim": 8}, str(folder / "weights.safetensors"), 2)
    with pytest.raises(ValueError, match=r"has no \['embed_dim', 'text_cfg'\]"):
        CLIPClassifier({"vision_cfg": {}}, None, 2)


def test_a_tag_that_cannot_be_fetched_is_an_error_and_no_random_weights(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("open_clip.factory.download_pretrained", offline)
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=r"(?s)`openai` of `RN50-quickgelu` could not be had") as e,
    ):
        CLIPClassifier("RN50-quickgelu", "openai", 2)
    assert "give its path as `pretrained`" in str(e.value)
    assert "no route to host" in str(e.value)


def test_models_and_tags_that_do_not_exist_or_do_not_match():
    with pytest.raises(ValueError, match=r"knows no model `ViT-B16`; did you mean .*ViT-B-16"):
        CLIPClassifier("ViT-B16", "openai", 2)
    with pytest.raises(
        ValueError, match=r"'opena', which is neither a tag of `ViT-B-16` \(these are openai, .*nor a file"
    ):
        CLIPClassifier("ViT-B-16", "opena", 2)
    with pytest.raises(ValueError, match=r"another activation than `ViT-B-16` has.*`model='ViT-B-16-quickgelu'`"):
        CLIPClassifier("ViT-B-16", "openai", 2)
    with pytest.raises(ValueError, match=r"brings its own weights; leave `pretrained` out"):
        CLIPClassifier("local-dir:somewhere", "openai", 2)


def test_from_the_command_line(stored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, _ = stored
    config = f"""
model:
  class_path: CLIPClassifier
  init_args: {{model: {folder}/config.json, pretrained: {folder}/weights.safetensors, lr_schedule: cpe_clip, lr: 0.001}}
data:
  source: {{class_path: Digits, init_args: {{image_size: 16, normalize: false}}}}
  scenario: {{class_path: ClassIncremental, init_args: {{num_tasks: 5}}}}
trainer:
  limit_train_batches: 1
  limit_val_batches: 1
  logger: false
  enable_checkpointing: false
  callbacks: [{{class_path: CPECLIP, init_args: {{num_prompts: 1}}}}, {{class_path: ContinualEvaluation}}]
"""
    (tmp_path / "run.yaml").write_text(config)
    assert main(["fit", "--config", str(tmp_path / "run.yaml")]) == 0
