"""The frozen head against its formula: scale, lift, cosines, and what may not change."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from lightning_cl.class_embeddings import RandomTargets
from lightning_cl.nn.language_head import LanguageHead, auto_scale, mean_off_diagonal, orthonormal


def targets(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def head(width: int = 8, dim: int = 8, **options) -> LanguageHead:
    made = LanguageHead(6, width, dim, **{"scale": 10.0, **options})
    made.add(torch.tensor([0, 2, 4]), targets(3, dim))
    return made


def test_the_scale_of_the_specification():
    assert auto_scale(0.286631, 100) == pytest.approx(12.8829, abs=1e-3)
    for cosine, expected in ((0.4, 15.3), (0.6, 23.0), (0.8, 46.0), (0.9, 92.0)):
        assert auto_scale(cosine, 100) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("scale", "low", "high"), [("auto", 0.0, 0.05), (1.0, 3.5, 5.0)])
def test_the_cross_entropy_that_can_be_reached(scale, low, high):
    rows = targets(100, 384) + 0.63  # a common part: cosines around 0.29
    made = LanguageHead(100, 384, 384, scale=scale)
    made.add(torch.arange(100), rows)
    loss = F.cross_entropy(made(made.weight), torch.arange(100))
    assert low <= float(loss) <= high


def test_logits_are_scaled_cosines_and_do_not_depend_on_lengths():
    made, x = head(), targets(5, 8, seed=1)
    logits = made(x)
    rows = F.normalize(targets(3, 8), dim=1)
    expected = 10 * F.cosine_similarity(x[:, None], rows[None], dim=-1)
    assert_close(logits[:, [0, 2, 4]], expected)
    assert torch.isneginf(logits[:, [1, 3, 5]]).all()
    assert_close(made(37 * x), logits)
    assert_close(made(1e-3 * x), logits)
    assert_close(LanguageHead.forward(head(scale=3.0), x).argmax(1), logits.argmax(1))


def test_the_dot_product_keeps_the_length():
    made, x = head(similarity="dot", scale=1.0), targets(5, 8, seed=1)
    assert_close(made(2 * x)[:, 0], 2 * made(x)[:, 0])


@pytest.mark.parametrize("width", [512, 768])
def test_the_lift_keeps_all_angles(width):
    rows = targets(20, 384)
    made = LanguageHead(20, width, 384, scale=10.0)
    made.add(torch.arange(20), rows)
    unit = F.normalize(rows, dim=1)
    assert made.match == "lift"
    assert_close(made.weight @ made.weight.T, unit @ unit.T, rtol=0, atol=1e-5)
    assert_close(made.turn.T @ made.turn, torch.eye(384), rtol=0, atol=1e-5)
    assert torch.equal(made.turn, orthonormal(width, 384, 0))
    assert not torch.equal(made.turn, orthonormal(width, 384, 1))
    assert_close(made.weight.norm(dim=1), torch.ones(20), rtol=0, atol=1e-6)


def test_short_features_are_projected_or_targets_compressed():
    projected = head(width=4, dim=8)
    assert projected.match == "project"
    assert [n for n, _ in projected.named_parameters()] == ["project.weight"]
    assert projected(targets(2, 4)).shape == (2, 6)
    compressed = head(width=6, dim=8, match="compress")
    assert compressed.weight.shape == (6, 6)
    assert_close(compressed.weight[[0, 2, 4]].norm(dim=1), torch.ones(3), rtol=0, atol=1e-6)
    assert not list(compressed.parameters())


def test_rows_are_no_parameters_and_later_classes_leave_them_alone():
    made = head()
    assert not list(made.parameters())
    assert not made.weight.requires_grad
    before = made.weight.clone()
    made.add(torch.tensor([1]), targets(1, 8, seed=5))
    assert torch.equal(made.weight[[0, 2, 4]], before[[0, 2, 4]])
    assert made.known.tolist() == [True, True, True, False, True, False]


def test_the_gradient_turns_a_feature_and_does_not_stretch_it():
    made, x = head(), targets(4, 8, seed=2).requires_grad_()
    F.cross_entropy(made(x)[:, [0, 2, 4]], torch.tensor([0, 1, 2, 0])).backward()
    assert float(x.grad.norm()) > 0.01
    assert ((x.grad * x).sum(1).abs() < 1e-5 * x.grad.norm(dim=1) * x.norm(dim=1)).all()


def test_the_automatic_scale_is_set_once_and_saved():
    made = LanguageHead(6, 8, 8)
    made.add(torch.tensor([0, 1]), targets(2, 8))
    first = float(made.scale)
    assert first == pytest.approx(auto_scale(mean_off_diagonal(targets(2, 8)), 6))
    made.add(torch.tensor([2]), targets(1, 8, seed=3))
    assert float(made.scale) == first
    fresh = LanguageHead(6, 8, 8)
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(fresh(targets(2, 8)), made(targets(2, 8)))


@pytest.mark.parametrize("scale", ["auto", "learnable"])
def test_classes_that_arrive_one_by_one_give_the_scale_of_the_first_two(scale):
    rows = targets(3, 8) + 1.0  # close to each other
    made = LanguageHead(6, 8, 8, scale=scale)
    made.add(torch.tensor([3]), rows[:1])
    assert made(targets(2, 8))[:, 3].isfinite().all()
    made.add(torch.tensor([0]), rows[1:2])
    expected = auto_scale(mean_off_diagonal(rows[:2]), 6)
    assert expected > 1.2 * auto_scale(0.0, 6)
    made.add(torch.tensor([5]), rows[2:])
    assert float(made.scale) == pytest.approx(expected)
    if made.log_scale is not None:
        assert made.log_scale.exp().item() == pytest.approx(expected)


def test_a_learnable_scale_starts_there_and_learns():
    made = LanguageHead(6, 8, 8, scale="learnable")
    made.add(torch.arange(6), targets(6, 8))
    assert float(made.log_scale.exp()) == pytest.approx(float(made.scale), rel=1e-5)
    F.cross_entropy(made(targets(4, 8, seed=1)), torch.tensor([0, 1, 2, 3])).backward()
    assert float(made.log_scale.grad.abs()) > 0


def test_half_precision_features_are_compared_in_single():
    made = head()
    x = targets(3, 8, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = made(x.bfloat16())
    assert logits.dtype == torch.float32
    assert_close(logits, made(x.bfloat16().float()))


def test_one_class_has_no_angle():
    assert mean_off_diagonal(targets(1, 4)) == 0.0
    assert math.isfinite(auto_scale(0.0, 1))


@pytest.mark.parametrize(
    ("width", "dim", "match", "words"),
    [(4, 8, "lift", "cannot be lifted into features of size 4"), (8, 4, "compress", "fit into features of size 8")],
)
def test_sizes_that_do_not_fit(width, dim, match, words):
    with pytest.raises(ValueError, match=words):
        LanguageHead(3, width, dim, match)


def old_class_accuracy(head_of, seed: int) -> float:
    """Accuracy on the classes of all tasks but the last: 8 Gaussian classes in 4 tasks of 2, no replay."""
    generator = torch.Generator().manual_seed(seed)
    means = 1.2 * torch.randn(8, 16, generator=generator)
    x = means.repeat_interleave(200, 0) + torch.randn(1600, 16, generator=generator)
    test = means.repeat_interleave(50, 0) + torch.randn(400, 16, generator=generator)
    torch.manual_seed(seed)
    body = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32))
    made = head_of()
    optimizer = torch.optim.SGD([*body.parameters(), *made.parameters()], lr=0.05, momentum=0.9)
    for task in range(4):
        seen = 2 * task + 2
        if isinstance(made, LanguageHead):
            classes = torch.arange(seen - 2, seen)
            made.add(classes, RandomTargets(32, seed).targets([f"class {c}" for c in classes]))
        for _ in range(10):
            for rows in (400 * task + torch.randperm(400, generator=generator)).split(32):
                optimizer.zero_grad()
                F.cross_entropy(made(body(x[rows]))[:, :seen], rows // 200).backward()
                optimizer.step()
    with torch.no_grad():
        hits = made(body(test)).argmax(1) == torch.arange(400) // 50
    return float(hits[:300].float().mean())


def test_frozen_targets_forget_less_than_a_head_that_is_trained():
    frozen = [old_class_accuracy(lambda: LanguageHead(8, 32, 32, scale=16.0), seed) for seed in range(3)]
    trained = [old_class_accuracy(lambda: torch.nn.Linear(32, 8), seed) for seed in range(3)]
    assert sum(frozen) / 3 >= sum(trained) / 3 + 0.05


def test_classes_that_arrive_do_not_have_a_compiled_head_compiled_again():
    made, counter = head(), CompileCounter()
    compiled = torch.compile(made, backend=counter)
    x = targets(5, 8, seed=1)
    before = compiled(x)
    made.add(torch.tensor([1, 3]), targets(2, 8, seed=2))
    after = compiled(x)
    assert_close(after, made(x))
    assert torch.equal(after[:, [0, 2, 4]], before[:, [0, 2, 4]])
    assert after.isfinite().all(0).tolist() == [True] * 5 + [False]
    assert counter.frame_count == 1
