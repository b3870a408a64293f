from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from conformance.runs import in_forked_processes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn.mvp_losses import (
    broadcast_key_loss,
    contrastive_key_loss,
    fit_scale,
    focal_weight,
    gradient_conflict,
    scale_logits,
)


def case(batch=6, pool=4, width=5, seed=0):
    """Queries, keys, what they select, and usage of the keys."""
    torch.manual_seed(seed)
    queries, keys = torch.randn(batch, width).double(), nn.Parameter(torch.randn(pool, width).double())
    return queries, keys, torch.randint(pool, (batch,)), torch.randint(30, (pool,)).double()


def distances(queries, keys):
    between = 1 - F.cosine_similarity(queries[:, None], keys, dim=-1)
    return between, 1 - F.cosine_similarity(keys[:, None], keys, dim=-1)


# ---------------------------------------------------------------------- contrastive prompt loss


@pytest.mark.parametrize("seed", range(3))
def test_the_contrastive_loss_is_that_of_the_paper_sample_by_sample(seed):
    queries, keys, ids, usage = case(seed=seed)
    losses, rows = [], keys.detach()
    for query, s in zip(queries, ids.tolist(), strict=True):
        tau = usage[s].item() + 1
        pull = math.exp((1 - F.cosine_similarity(query, rows[s], dim=0)) / tau)
        push = sum(math.exp((1 - F.cosine_similarity(rows[s], key, dim=0)) / tau) for key in rows) / len(rows)
        losses.append(-math.log(push / (pull + push)))
    value = contrastive_key_loss(*distances(queries, keys), usage + 1, ids)
    assert value.item() == pytest.approx(sum(losses) / len(losses), abs=1e-10)


def public_code(queries, keys, ids, usage):
    """The formula with the shapes that broadcast: ``(B, 1, P) / (B, 1)`` and ``(B,) / (B, 1)``."""
    between, among = distances(queries, keys)
    ids, mass = ids[:, None], usage + 1
    pull = (between.gather(1, ids).squeeze(1) / mass[ids]).exp().mean()
    push = (among[ids] / mass[ids]).exp().mean()
    return -(push / (pull + push) + 1e-6).log()


@pytest.mark.parametrize("seed", range(3))
def test_the_broadcast_loss_is_that_of_the_public_code(seed):
    queries, keys, ids, usage = case(seed=seed)
    expected = public_code(queries, keys, ids, usage)
    value = broadcast_key_loss(*distances(queries, keys), usage + 1, ids, torch.bincount(ids, minlength=4))
    assert_close(value, expected, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(v, keys, retain_graph=True)[0] for v in (value, expected))
    assert ours.abs().max() > 1e-3
    assert_close(ours, theirs, rtol=0, atol=1e-12)
    per_sample = contrastive_key_loss(*distances(queries, keys), usage + 1, ids)
    assert abs(per_sample - value) > 1e-4  # they do differ


def test_with_long_used_keys_the_losses_are_flat():
    queries, keys, ids, usage = case()
    usage[:] = 1e6
    value = contrastive_key_loss(*distances(queries, keys), usage + 1, ids)
    assert value.item() == pytest.approx(math.log(2), abs=1e-6)
    assert torch.autograd.grad(value, keys)[0].abs().max() < 1e-6
    value = broadcast_key_loss(*distances(queries, keys), usage + 1, ids, torch.bincount(ids, minlength=4))
    assert value.item() == pytest.approx(0.693145, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype):
    queries, keys, ids, usage = case()
    between, among = (d.detach().float() for d in distances(queries, keys))
    head, features, factors, allowed, labels = classified()
    residual = residual_of(head, features, factors, allowed, labels).float()
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype, enabled=enabled):
            counts = torch.bincount(ids, minlength=4)
            results.append(
                [
                    contrastive_key_loss(between, among, usage.float() + 1, ids),
                    broadcast_key_loss(between, among, usage.float() + 1, ids, counts),
                    gradient_conflict(features.float(), residual, labels),
                    fit_scale(features.float(), features.float().flip(0), 0.5),
                ]
            )
    for exact, cast in zip(*results, strict=True):
        assert cast.dtype == torch.float32
        assert torch.equal(cast, exact)


# ---------------------------------------------------------------------- scaled features


def test_the_scale_is_the_distance_to_the_classs_row_and_a_margin():
    rows = torch.eye(3).double()
    features = torch.stack([4 * rows[0], -rows[1], rows[0]])  # parallel, opposite, at a right angle
    assert_close(fit_scale(features, rows, 0.5), torch.tensor([0.5, 2.5, 1.5]).double())


@given(st.integers(0, 10_000), st.floats(0.01, 3))
@settings(max_examples=50, deadline=None)
def test_the_scale_stays_in_its_range(seed, margin):
    generator = torch.Generator().manual_seed(seed)
    features, rows = (torch.randn(5, 3, generator=generator) for _ in "ab")
    features[0], features[1] = 7 * rows[0], -7 * rows[1]  # where rounding would leave it
    scale = fit_scale(features, rows, margin)
    assert margin <= scale.min() + 1e-7
    assert scale.max() <= margin + 2 + 1e-6


@pytest.mark.parametrize("bias", [True, False])
def test_logits_of_scaled_features_need_no_product(bias):
    torch.manual_seed(0)
    head, features, scale = nn.Linear(5, 7, bias=bias).double(), torch.randn(4, 5).double(), torch.rand(4).double() + 1
    features.requires_grad_()
    wanted = [features, *head.parameters()]
    gradients = []
    for logits in (scale_logits(head(features), head.bias, scale), head(features / scale[:, None])):
        gradients.append([logits.detach(), *torch.autograd.grad(logits.square().sum(), wanted)])
    for ours, direct in zip(*gradients, strict=True):
        assert_close(ours, direct, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------- focal weight


def classified(batch=9, classes=6, width=5, seed=0):
    """Head, features, factors of the logits, allowed classes and labels."""
    torch.manual_seed(seed)
    head = nn.Linear(width, classes).double()
    features, factors = torch.randn(batch, width).double(), 2 * torch.rand(batch, classes).double()
    allowed = torch.tensor([True, True, False, True, True, False])
    labels = torch.tensor([0, 1, 3, 4])[torch.randint(4, (batch,))]
    return head, features, factors, allowed, labels


def conflict_by_autograd(head, features, factors, allowed, labels):
    """One backward pass per sample and one of the batch, as the public code does."""
    head = copy.deepcopy(head)
    logits = (head(features) * factors).masked_fill(~allowed, -torch.inf)
    losses = F.cross_entropy(logits, labels, reduction="none")
    (batch,) = torch.autograd.grad(losses.mean(), head.weight, retain_graph=True)
    conflict = []
    for loss, label in zip(losses, labels.tolist(), strict=True):
        (own,) = torch.autograd.grad(loss, head.weight, retain_graph=True)
        conflict.append(1 - F.cosine_similarity(own[label], batch[label], dim=0))
    return torch.stack(conflict)


def residual_of(head, features, factors, allowed, labels):
    logits = (head(features) * factors).masked_fill(~allowed, -torch.inf).detach()
    return (logits.softmax(1) - F.one_hot(labels, 6)) * factors


@pytest.mark.parametrize("seed", range(5))
def test_the_closed_form_is_the_gradient_of_every_sample(seed):
    given_ = classified(seed=seed)
    expected = conflict_by_autograd(*given_)
    assert expected.max() - expected.min() > 0.3
    assert_close(gradient_conflict(given_[1], residual_of(*given_), given_[4]), expected, rtol=0, atol=1e-6)


def test_a_single_sample_agrees_with_its_batch_and_one_without_gradient_neither_agrees_nor_not():
    head, features, factors, allowed, labels = classified(batch=2)
    alone = residual_of(head, features[:1], factors[:1], allowed, labels[:1])
    assert_close(gradient_conflict(features[:1], alone, labels[:1]).item(), 0.0, rtol=0, atol=1e-12)
    residual = residual_of(head, features, factors, allowed, labels)
    residual[1] = 0  # so sure that the softmax is one
    assert gradient_conflict(features, residual, labels)[1] == 1


def test_tiny_gradients_have_a_direction():
    head, features, factors, allowed, labels = classified()
    residual = residual_of(head, features, factors, allowed, labels).float()
    conflict = gradient_conflict(features.float(), residual, labels)
    assert_close(gradient_conflict(features.float(), residual * 1e-20, labels), conflict, rtol=0, atol=1e-5)


@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 5))
@settings(max_examples=50, deadline=None)
def test_weights_stay_in_their_range(seed, alpha, gamma):
    given_ = classified(seed=seed)
    conflict = gradient_conflict(given_[1], residual_of(*given_), given_[4])
    for reduction in ("sample", "batch"):
        weight = focal_weight(conflict, alpha, gamma, reduction)
        assert bool((weight >= 1 - alpha - 1e-12).all())
        assert bool((weight <= 1 - alpha + alpha * 2**gamma + 1e-9).all())
    assert_close(focal_weight(conflict, alpha, gamma, "batch"), focal_weight(conflict, alpha, gamma).mean().expand(9))


def test_weights_by_hand():
    conflict = torch.tensor([0.0, 1.0, 2.0])
    assert focal_weight(conflict, 0.5, 2.0).tolist() == [0.5, 1.0, 2.5]
    assert focal_weight(conflict, 0.5, 2.0, "batch").tolist() == pytest.approx([4 / 3] * 3)
    assert focal_weight(conflict, 0.0, 2.0).tolist() == [1, 1, 1]


# ---------------------------------------------------------------------- processes


@pytest.mark.parametrize("shares", [(0, 4, 9), (0, 1, 1)], ids=["uneven", "one-fills-up"])
def test_two_processes_weigh_as_one(shares, tmp_path):
    """A process without a sample repeats the first, which does not count."""
    total = shares[-1]
    head, features, factors, allowed, labels = classified(batch=total)
    residual = residual_of(head, features, factors, allowed, labels)
    queries, keys, ids, usage = case(batch=total)
    counts = torch.bincount(ids, minlength=4)

    def rank():
        torch.distributed.init_process_group("gloo")
        me = torch.distributed.get_rank()
        counted = shares[me] < shares[me + 1]
        rows = slice(shares[me], shares[me + 1]) if counted else slice(0, 1)
        conflict = gradient_conflict(features[rows], residual[rows], labels[rows], counted)
        weights = focal_weight(conflict, 0.5, 2.0, "batch", counted)
        loss = broadcast_key_loss(*distances(queries[rows], keys), usage + 1, ids[rows], counts, counted)
        (gradient,) = torch.autograd.grad(loss, keys)
        gradient = gradient * (shares[me + 1] - shares[me]) / total  # as the driver weighs the processes
        torch.distributed.all_reduce(gradient)
        torch.save((conflict[: counted * 9], weights, loss.detach(), gradient), tmp_path / f"{me}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    ranks = [torch.load(tmp_path / f"{me}.pt", weights_only=True) for me in (0, 1)]
    conflict = gradient_conflict(features, residual, labels)
    loss = broadcast_key_loss(*distances(queries, keys), usage + 1, ids, counts)
    assert_close(torch.cat([r[0] for r in ranks]), conflict)
    for _, weights, value, gradient in ranks:
        assert_close(weights, focal_weight(conflict, 0.5, 2.0, "batch")[:1].expand_as(weights))
        assert_close(value, loss.detach())
        assert_close(gradient, torch.autograd.grad(loss, keys, retain_graph=True)[0])
