from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_cl.datamodules.sampling import (
    EvalPlan,
    TrainPlan,
    evaluation_order,
    hold_out,
    keep_back,
    mix_seed,
    permutation,
    share,
    with_replay,
)

counts, batch_sizes, worlds = st.integers(1, 60), st.integers(1, 17), st.integers(1, 9)


@given(st.integers(0, 100), worlds)
def test_shares_are_contiguous_complete_and_even(count, world_size):
    parts = [share(count, world_size, rank) for rank in range(world_size)]
    assert [i for start, stop in parts for i in range(start, stop)] == list(range(count))
    sizes = [stop - start for start, stop in parts]
    assert max(sizes) - min(sizes) <= 1


@given(counts, batch_sizes, worlds, st.booleans(), st.booleans(), st.integers(0, 5))
def test_the_ranks_share_out_the_global_batch(count, batch_size, world_size, shuffle, drop_last, epoch):
    plan = TrainPlan(torch.arange(100, 100 + count), batch_size, drop_last, shuffle, seed=3)
    order, seen = plan.order(epoch), []
    assert sorted(order.tolist()) == plan.index.tolist()
    for batch_idx in range(len(plan)):
        rows = order[batch_idx * batch_size : (batch_idx + 1) * batch_size]
        batches = [plan.batch(order, batch_idx, world_size, rank) for rank in range(world_size)]
        assert torch.equal(torch.cat([batch.index[: batch.real] for batch in batches]), rows)
        assert all(len(batch.index) == max(batch.real, 1) for batch in batches)  # every rank has something to do
        seen += rows.tolist()
        # Mean over the ranks of the weighted local means == mean over the global batch.
        value = rows.double().mean()
        local = torch.stack([batch.weight * batch.index[: max(batch.real, 1)].double().mean() for batch in batches])
        assert_close(local.mean(), value)
    left_out = count % batch_size if drop_last else 0
    assert len(seen) == len(set(seen)) == count - left_out


def test_equal_shares_have_a_weight_of_exactly_one():
    plan = TrainPlan(torch.arange(12), 6)
    assert {plan.batch(plan.order(0), b, 3, rank).weight for b in range(2) for rank in range(3)} == {1.0}


def test_a_rank_without_a_sample_repeats_one_that_does_not_count():
    plan = TrainPlan(torch.arange(5), 4, shuffle=False)
    batch = plan.batch(plan.order(0), 1, world_size=2, rank=1)  # one sample is left for two ranks
    assert (batch.index.tolist(), batch.real, batch.weight) == ([4], 0, 0.0)


@given(counts, batch_sizes, worlds)
def test_an_evaluation_covers_every_sample_once(count, batch_size, world_size):
    plan = EvalPlan(torch.randperm(count), batch_size, world_size)
    batches = [[plan.batch(plan.order(), b, rank) for rank in range(world_size)] for b in range(len(plan))]
    assert torch.equal(torch.cat([batch.index[: batch.real] for step in batches for batch in step]), plan.index)
    repeated = [batch for step in batches for batch in step if batch.real < len(batch.index)]
    assert not repeated or (count if count < batch_size else batch_size) < world_size


def test_a_last_evaluation_batch_that_is_too_small_joins_the_one_before():
    assert len(EvalPlan(torch.arange(9), 4, world_size=2)) == 2
    assert len(EvalPlan(torch.arange(10), 4, world_size=2)) == 3
    assert len(EvalPlan(torch.arange(1), 4, world_size=2)) == 1
    assert len(EvalPlan(torch.arange(0), 4, world_size=2)) == 0


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), batch_sizes, worlds)
def test_no_evaluation_batch_reaches_beyond_its_run(sizes, batch_size, world_size):
    plan = EvalPlan(torch.randperm(sum(sizes)), batch_size, world_size, tuple(sizes))
    run_of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))[plan.index.argsort()]
    batches = [[plan.batch(plan.order(), b, rank) for rank in range(world_size)] for b in range(len(plan))]
    assert torch.equal(torch.cat([batch.index[: batch.real] for step in batches for batch in step]), plan.index)
    for step in batches:
        runs = run_of[torch.cat([batch.index for batch in step])]
        assert len(runs.unique()) == 1  # also of samples that a rank without one repeats
        assert sum(batch.real for batch in step) < batch_size + world_size
        assert sum(batch.weight for batch in step) == pytest.approx(world_size)


def test_a_stream_keeps_its_order_and_a_shuffled_task_changes_it_every_epoch():
    index = torch.tensor([5, 3, 9, 1, 7, 2, 8])
    assert torch.equal(TrainPlan(index, 2, shuffle=False).order(4), index)
    plan = TrainPlan(index, 2, seed=1)
    assert torch.equal(plan.order(4), plan.order(4))
    assert not torch.equal(plan.order(4), plan.order(5))
    assert not torch.equal(plan.order(4), TrainPlan(index, 2, seed=2).order(4))


def test_evaluation_order_of_more_tasks_continues_that_of_fewer():
    parts = [torch.arange(0, 10), torch.arange(10, 15), torch.arange(15, 30)]
    orders = [evaluation_order(parts[:n], seed=4) for n in (1, 2, 3)]
    for shorter, longer in pairwise(orders):
        assert torch.equal(longer[: len(shorter)], shorter)
    assert sorted(orders[2].tolist()) == list(range(30))
    assert not torch.equal(orders[2], torch.arange(30))


def test_orders_do_not_touch_the_global_generator():
    before = torch.get_rng_state()
    permutation(50, 1, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_orders_are_the_same_on_every_machine():
    assert mix_seed(0) != mix_seed(0, 0) != mix_seed(0, 0, 0)
    assert mix_seed(1, 2) != mix_seed(2, 1)
    assert [mix_seed(), mix_seed(0), mix_seed(1, 2, 3), mix_seed(-1)] == [
        5700357409661599242,
        7795324965117060851,
        6087047714123848686,
        4329491817318438515,
    ]
    assert permutation(8, 7, 7).tolist() == [0, 1, 7, 4, 3, 2, 5, 6]


@given(st.lists(st.integers(-(2**70), 2**70), max_size=4))
def test_seeds_fit_torch(values):
    assert 0 <= mix_seed(*values) < 2**63


@given(
    st.lists(st.integers(2, 12), min_size=1, max_size=5),
    st.floats(0.01, 0.99),
    st.integers(0, 3),
)
def test_hold_out_takes_a_fraction_of_every_class(sizes, fraction, seed):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels))]
    kept, held = hold_out(labels, fraction, seed)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    for label, size in enumerate(sizes):
        expected = min(max(round(fraction * size), 1), size - 1)
        assert int((labels[held] == label).sum()) == expected
    assert all(torch.equal(a, b) for a, b in zip(hold_out(labels, fraction, seed), (kept, held), strict=True))


def test_ten_thousand_classes_are_split_as_one_by_one():
    labels = torch.randperm(60_000, generator=torch.Generator().manual_seed(0)) % 10_000
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(0, 10_000, 97):
        members = (labels == label).nonzero().flatten()
        held[members[permutation(len(members), 3, label)[:2]]] = True
    _, found = hold_out(labels, 0.3, 3)
    assert found[labels[found] % 97 == 0].tolist() == held.nonzero().flatten().tolist()
    assert len(found) == 20_000


def test_hold_out_refuses_what_it_cannot_split():
    labels = torch.tensor([0, 0, 1])
    with pytest.raises(ValueError, match=r"class 1 has 1 training sample\(s\), so `val_split=0.5` would leave it none"):
        hold_out(labels, 0.5, 0)
    for fraction in (1.0, -0.1, 2.0):
        with pytest.raises(ValueError, match=f"`val_split` is {fraction}; give a fraction"):
            hold_out(labels, fraction, 0)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.floats(0.0, 0.99), st.integers(0, 3))
def test_keep_back_takes_no_more_than_a_fraction_of_any_class(sizes, fraction, seed):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels))]
    back = keep_back(labels, fraction, seed)
    assert torch.bincount(labels[back], minlength=len(sizes)).tolist() == [int(fraction * n) for n in sizes]
    assert torch.equal(keep_back(labels, fraction, seed), back)


@pytest.mark.parametrize(("share", "expected"), [(0.05, [55, 55, 55, 55, 56]), (0.25, [276] * 5), (0.0, [0] * 5)])
def test_old_samples_come_evenly(share, expected):
    mixed = with_replay(torch.arange(5 * 1104), torch.arange(-1, -2000, -1), share)
    assert [int((mixed[i : i + 1104] < 0).sum()) for i in range(0, 5 * 1104, 1104)] == expected
    own = mixed[mixed >= 0]
    assert torch.equal(own, torch.arange(len(own)))  # in order, the last ones left out


def test_too_few_old_samples_come_again():
    mixed = with_replay(torch.arange(10), torch.tensor([-1, -2]), 0.5)
    assert mixed.tolist() == [0, -1, 1, -2, 2, -1, 3, -2, 4, -1]


def test_a_plan_with_old_samples_draws_both_anew_every_epoch():
    plan = TrainPlan(torch.arange(12), 4, seed=1, old=torch.arange(100, 150), replay_share=0.25)
    first, again, second = plan.order(0), plan.order(0), plan.order(1)
    assert torch.equal(first, again)
    assert len(plan) == 3
    for order in (first, second):
        assert [(order[i : i + 4] >= 100).sum() for i in (0, 4, 8)] == [1, 1, 1]
        assert len(order.unique()) == 12
    assert set(first[first >= 100].tolist()) != set(second[second >= 100].tolist())
    assert set(first[first < 100].tolist()) != set(second[second < 100].tolist())
