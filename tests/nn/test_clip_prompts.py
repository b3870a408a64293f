"""What CPE-CLIP trains: how much, how it begins, and by how much each session moves it."""

from __future__ import annotations

import open_clip
import pytest
import torch
from torch.testing import assert_close

from lightning_cl.callbacks import CPECLIP
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.nn import CLIPPrompts, cpe_clip_warmup
from lightning_cl.nn.clip_prompts import gradient_shares


def sessions(base, ways, count):
    sizes = [base, *[ways] * count]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return tuple(tuple(range(end - size, end)) for size, end in zip(sizes, ends, strict=True))


def info(held):
    names = tuple(f"class {c}" for c in range(sum(map(len, held))))
    return StreamInfo(len(held), len(names), names, held, "f" * 64)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-16-quickgelu", 12 * 2 * 512 + 512 * 768 + 768),  # 406,272, as published
        ("ViT-L-14", 12 * 2 * 768 + 768 * 1024 + 1024),  # 12 of the image tower's 24 layers
    ],
)
def test_how_many_numbers_are_trained(name, expected):
    with torch.device("meta"):
        clip = open_clip.CLIP(**open_clip.get_model_config(name))
    clip.attn_mask = torch.full((77, 77), -torch.inf).triu(1)  # which is looked at, so it must be real
    prompts = CPECLIP()._prompts(clip, info(sessions(60, 5, 8)))
    trained = dict(prompts.named_parameters())
    assert list(trained) == ["language", "projection.weight", "projection.bias"]
    assert sum(p.numel() for p in trained.values()) == expected
    assert expected == 406_272 or name != "ViT-B-16-quickgelu"
    assert set(prompts.state_dict()) == {*trained, "task_counter"}


def test_how_they_begin():
    torch.manual_seed(0)
    prompts = CLIPPrompts(2, 12, 512, 768)
    g, weight, bias = prompts.language.detach(), prompts.projection.weight.detach(), prompts.projection.bias.detach()
    assert g.abs().max() <= 0.028932 + 1e-6
    assert g.std().item() == pytest.approx(0.0167, rel=0.02)
    assert weight.abs().max() <= 512**-0.5
    assert bias.abs().max() <= 512**-0.5
    assert_close(prompts.vision(), g @ weight.T + bias, rtol=1e-4, atol=1e-5)
    assert CLIPPrompts(2, 12, 512, None).vision() is None


def test_the_share_of_each_session():
    assert gradient_shares(sessions(60, 5, 8)) == (1.0, *(5 / n for n in range(65, 101, 5)))
    assert gradient_shares(sessions(100, 10, 10)) == (1.0, *(10 / n for n in range(110, 201, 10)))
    assert gradient_shares([[0, 1], [0, 1]]) == (1.0, 0.5)  # domains: the same classes again, and not nothing
    assert CPECLIP(regularization="none")._prompts(
        open_clip.CLIP(8, {"image_size": 8, "patch_size": 4, "width": 8, "head_width": 4, "layers": 1},
                       {"width": 8, "heads": 2, "layers": 1}), info(sessions(2, 1, 2))
    ).shares == (1.0,)  # fmt: skip


def test_the_share_follows_the_task_and_comes_back_with_the_weights():
    prompts = CLIPPrompts(1, 1, 4, 4, shares=gradient_shares(sessions(6, 2, 2)))
    assert prompts.share == 1
    prompts.start_task(1)
    assert prompts.share == 2 / 8
    fresh = CLIPPrompts(1, 1, 4, 4, shares=prompts.shares)
    fresh.load_state_dict(prompts.state_dict())
    assert (fresh.task, fresh.share) == (1, 2 / 8)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_scaling_the_loss_is_scaling_the_gradient(decay):
    start, share = torch.randn(4, dtype=torch.float64), 5 / 65

    def step(scale_loss):
        p = torch.nn.Parameter(start.clone())
        optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=decay)
        for target in (1.0, 2.0):
            optimizer.zero_grad()
            loss = ((p - target) ** 3).sum()
            (loss * share if scale_loss else loss).backward()
            if not scale_loss:
                p.grad.mul_(share)  # as in the official code, just before the step
            optimizer.step()
        return p.detach()

    assert_close(step(True), step(False), rtol=0, atol=1e-12)


def test_the_rates_that_the_official_runs_really_had():
    rates = [0.001 * cpe_clip_warmup(epoch, 5) for epoch in range(6)]
    assert rates == pytest.approx([0.001, 0.00298, 0.00496, 0.00694, 0.00892, 0.0109])
    assert 0.001 * cpe_clip_warmup(50, 300) == pytest.approx(0.1)
    assert cpe_clip_warmup(199, 300) < 1.02
    assert cpe_clip_warmup(200, 300) == 1
    with pytest.raises(ValueError, match="epoch -1 does not exist"):
        cpe_clip_warmup(-1, 5)
