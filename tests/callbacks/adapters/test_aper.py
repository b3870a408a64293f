"""APER: its adapters, its class means and its logits against formulas typed out, and a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conformance.modules import PLAIN, SPLIT
from conformance.runs import attached, train
from lightning.pytorch import seed_everything
from torch import Tensor

from lightning_cl.callbacks import APER, ContinualCallback, PrototypeClassifier, RunCost
from lightning_cl.nn.adapters import Adapter

from ..by_hand import Net, make_stream

pytestmark = pytest.mark.filterwarnings("ignore")


ARGUMENTS = {"rank": 4, "dropout": 0.0}


def tokens_by_hand(vit: Any, bank: dict[str, Tensor] | None, images: Tensor) -> Tensor:
    """``x + MLP(norm2 x) + s (U relu(D x + d) + u)``, ``x`` behind the attention; ``(B, D)`` class tokens."""
    x = vit.patch_embed(images)
    x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x], dim=1) + vit.pos_embed
    for index, block in enumerate(vit.blocks):
        x = x + block.attn(block.norm1(x))
        out = x + block.mlp(block.norm2(x))
        if bank is not None:
            key = f"banks.blocks/{index}/drop_path2."
            hidden = F.relu(x @ bank[key + "down"][0].T + bank[key + "down_bias"][0])
            out = out + 0.1 * (hidden @ bank[key + "up"][0] + bank[key + "up_bias"][0])
        x = out
    return vit.norm(x)[:, 0]


class WatchTraining(ContinualCallback):
    """Weights at every task's end."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_task_end(self, trainer: Any, pl_module: Any, task: Any) -> None:
        self.states.append({n: p.detach().clone() for n, p in pl_module.named_parameters()})


@pytest.fixture(scope="module")
def watch() -> WatchTraining:
    return WatchTraining()


@pytest.fixture(scope="module")
def finished(watch: WatchTraining, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(PLAIN, APER(**ARGUMENTS), tmp_path_factory.mktemp("aper"), callbacks=[watch])


@pytest.fixture(scope="module")
def plain() -> Any:
    """The network as it was before the run, and the images of the stream with their labels."""
    seed_everything(0, verbose=False)
    return PLAIN.build("adamw", 0.0)


def all_images(stream: Any) -> tuple[Tensor, Tensor]:
    rows = [row for task in range(3) for row in stream.train_loader_for(task, "eval", 0)]
    return torch.cat([x for x, _ in rows]), torch.cat([y for _, y in rows])


def test_a_class_is_the_mean_of_both_features_and_logits_are_cosines(finished: Any, plain: Any) -> None:
    """The frozen branch comes first, and neither half is scaled to unit length."""
    images, labels = all_images(finished.stream)
    bank = finished.module.continual.parts["aper"].adapters.state_dict()
    with torch.no_grad():
        phi = torch.cat([tokens_by_hand(plain.net.eval(), b, images) for b in (None, bank)], dim=1)
        found = finished.module.eval()(images)
    means = torch.stack([phi[labels == c].mean(0) for c in range(6)])
    expected = torch.stack([F.cosine_similarity(phi, mean[None], dim=1) for mean in means], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert (phi[:, :32] - phi[:, 32:]).abs().max() > 1e-2  # the adapters learned


def test_adapters_and_head_learn_in_the_first_task_only(watch: WatchTraining, finished: Any, plain: Any) -> None:
    first, *later = watch.states
    before = dict(plain.named_parameters())
    trunk = [name for name in first if name in before and "head" not in name]
    assert all(torch.equal(first[name], before[name]) for name in trunk)
    own = [name for name in first if name.startswith("continual.")]
    assert len(own) == 3 * 4 + 1
    assert len(later) == 2
    assert all(torch.equal(state[name], first[name]) for state in later for name in state)
    assert first["continual.parts.aper.scale"] != 1.0  # it is trained


def test_the_size_of_its_adapters() -> None:
    """99,136 parameters in a block of ViT-B/16 with rank 64; up-projection and biases start at zero."""
    adapter = Adapter(1, 768, 64)
    assert sum(p.numel() for p in adapter.parameters()) == 99136
    zero = {name for name, p in adapter.named_parameters() if not p.any()}
    assert zero == {"down_bias", "up", "up_bias"}
    assert adapter.down.abs().max() <= 768**-0.5


def test_the_head_of_the_first_task(plain: Any) -> None:
    """Cosines of features and rows times a scale that starts at 1."""
    module = attached(PLAIN, APER(**ARGUMENTS))
    module.train()
    images = torch.randn(5, 1, 16, 16)
    features = tokens_by_hand(plain.net.eval(), None, images)
    expected = F.cosine_similarity(features[:, None], plain.net.head.weight[None], dim=2)
    torch.testing.assert_close(module(images), expected, rtol=0, atol=1e-5)


def test_without_scale_it_is_the_classifier_of_class_means(finished: Any, tmp_path: Path) -> None:
    """Two equal halves have the cosines of one."""
    runs = [
        train(PLAIN, method, tmp_path)
        for method in (APER(**ARGUMENTS, scale=0.0), PrototypeClassifier("cosine", normalize=False))
    ]
    images, _ = all_images(finished.stream)
    ours, means = (run.module.eval()(images) for run in runs)
    torch.testing.assert_close(ours, means, rtol=0, atol=1e-5)
    assert torch.equal(runs[0].evaluation.correct["class_il"], runs[1].evaluation.correct["class_il"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rank": 0}, "`rank` is 0; give at least 1"),
        ({"scale": -1.0}, "`scale` is -1.0; give at least 0"),
        ({"dropout": 2.0}, r"`dropout` is 2.0; give a number in \[0, 1\]"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        APER(**arguments)


def test_ssf_scales_and_shifts_the_channels_of_every_layer():
    module = attached(PLAIN, APER(tuning="ssf"))
    part, vit = module.continual.parts["aper"], module.net
    assert len(list(part.adapters)) == 2 + 6 * len(vit.blocks)  # patches, last norm, six layers a block
    images = torch.rand(5, 1, 16, 16)
    with torch.no_grad():
        for bank in part.adapters:
            bank.gamma.fill_(1.0)
            bank.beta.zero_()
        with part.adapters.selected(None):
            frozen = module.eval().head_input(images)
        part.adapters.select(0)
        assert torch.equal(module.head_input(images), frozen)  # nothing is changed, bit for bit
        last = part.adapters.banks["norm"]
        last.gamma.fill_(2.0)
        last.beta.fill_(0.5)
        torch.testing.assert_close(module.head_input(images), 2 * frozen + 0.5)
        part.adapters.banks["patch_embed/proj"].beta[0, 0] = 1.0
        assert not torch.allclose(module.head_input(images), 2 * frozen + 0.5)


def test_a_run_with_ssf_moves_nothing_after_the_first_task(tmp_path):
    watch = WatchTraining()
    run = train(PLAIN, APER(tuning="ssf"), tmp_path, callbacks=[watch])
    first, *later = watch.states
    assert all(torch.equal(value, state[name]) for state in later for name, value in first.items())
    assert float((run.module.continual.parts["aper"].means.counts > 0).sum()) == 6


def prompted_by_hand(vit: Any, tokens: list[Tensor], deep: bool, images: Tensor) -> Tensor:
    """Tokens behind the image's, of each block's own or one set through all of them; ``(B, D)`` class tokens."""
    x = vit._pos_embed(vit.patch_embed(images))
    count = x.shape[1]
    for index, block in enumerate(vit.blocks):
        if deep or index == 0:
            x = torch.cat([x[:, :count], tokens[index].expand(len(x), -1, -1)], dim=1)
        x = block(x)
    return vit.norm(x)[:, 0]


@pytest.mark.parametrize("tuning", ["vpt_shallow", "vpt_deep"])
@torch.no_grad()
def test_trained_tokens(tuning: str, plain: Any) -> None:
    module, deep = attached(PLAIN, APER(tuning=tuning, tokens=3)), tuning == "vpt_deep"
    part, images = module.continual.parts["aper"], torch.rand(4, 1, 16, 16)
    banks = list(part.adapters)
    assert len(banks) == (3 if deep else 1)
    assert all(bank.tokens.shape == (1, 3, 32) for bank in banks)
    assert not any(bool(bank.tokens.any()) for bank in banks)
    trained = {n for n, p in module.named_parameters() if p.requires_grad}
    assert trained == {n for n in trained if ".banks." in n or n.endswith((".scale", "head.weight", "head.bias"))}
    for bank in banks:
        bank.tokens.normal_()
    expected = prompted_by_hand(plain.net.eval(), [bank.tokens[0] for bank in banks], deep, images)
    torch.testing.assert_close(module.eval().head_input(images), expected, rtol=0, atol=1e-5)
    part.adapters.select(None, 0)
    both = module.head_input(images)
    assert torch.equal(both[:4], plain.net.forward_head(plain.net.forward_features(images), pre_logits=True))
    torch.testing.assert_close(both[4:], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tuning", ["vpt_shallow", "vpt_deep", "finetune"])
def test_a_run_moves_nothing_after_the_first_task(tuning: str, plain: Any, tmp_path: Path) -> None:
    watch = WatchTraining()
    run = train(PLAIN, APER(tuning=tuning, tokens=2), tmp_path, callbacks=[watch])
    first, *later = watch.states
    assert all(torch.equal(value, state[name]) for state in later for name, value in first.items())
    images, labels = all_images(run.stream)
    with torch.no_grad():
        halves = plain.net.eval().forward_features(images)[:, 0], run.module.eval().head_input(images).chunk(2)[1]
        found = run.module(images)
    phi = torch.cat(halves, dim=1)
    means = torch.stack([phi[labels == c].mean(0) for c in range(6)])
    expected = torch.stack([F.cosine_similarity(phi, mean[None], dim=1) for mean in means], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert (halves[0] - halves[1]).abs().max() > 1e-3  # something was learned


def test_all_weights_and_a_frozen_copy(plain: Any) -> None:
    module = attached(PLAIN, APER(tuning="finetune"))
    module.train()
    frozen, before = module.continual.parts["aper"].frozen, dict(plain.net.named_parameters())
    copied = dict(frozen.named_parameters())
    assert copied.keys() == {name for name in before if not name.startswith("head.")}
    assert all(torch.equal(p, before[name]) and not p.requires_grad for name, p in copied.items())
    assert all(p.requires_grad for p in module.net.parameters())
    assert not any(part.training for child in frozen.children() for part in child.modules())
    assert module.net.blocks.training


def test_an_unknown_tuning_is_refused():
    with pytest.raises(ValueError, match="`tuning` is 'vpt'; give one of 'adapter', 'ssf', 'vpt_shallow'"):
        APER(tuning="vpt")
    with pytest.raises(ValueError, match="`tokens` is 0; give at least 1"):
        APER(tuning="vpt_deep", tokens=0)


def test_a_module_without_a_vit_stays_as_it_is():
    module = Net()
    with pytest.raises(ValueError, match="no timm `VisionTransformer` was found in the module, and APER needs one"):
        APER().attach_once(module, make_stream().info)
    assert type(module) is Net
    assert not hasattr(module, "continual")


@pytest.mark.parametrize(
    ("case", "tuning", "counted"),
    [(PLAIN, "adapter", 2), (SPLIT, "adapter", 2), (PLAIN, "vpt_deep", 2), (SPLIT, "finetune", 1)],
    ids=lambda value: getattr(value, "name", value),
)
def test_images_pass_once_outside_of_the_tuned_task(case: Any, tuning: Any, counted: int, tmp_path: Any) -> None:
    """27 images in one epoch of training; then all once, and evaluation images once, whose answers are as before.

    A pass through both networks is two, where the frozen one is not another module.
    """
    cost, known = RunCost(latency=False), []
    for cached in (True, False):
        method = APER(**APER.small, tuning=tuning, cache_features=cached)
        run = train(case, method, tmp_path, callbacks=[cost] if cached else [], num_sanity_val_steps=0)
        known.append(run.evaluation.correct["class_il"])
    facts = cost.report_facts()
    assert (facts["forward_samples"], facts["evaluated_samples"]) == (27 + 81 * counted, 42 * counted)
    assert torch.equal(*known)
    assert int(known[0].sum()) > 0
