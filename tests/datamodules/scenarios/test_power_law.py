from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_cl.datamodules import ClassIncremental, DomainIncremental, PowerLaw
from lightning_cl.datamodules.scenarios.power_law import draw, mixture_weights, recurrence, rehearsal_counts

LABELS = torch.arange(4000) % 10
BASE = ClassIncremental(5, class_order="natural")


def tasks_of(**options):
    return PowerLaw(BASE, **options).train_tasks(LABELS, None, 10, 0)


def counts_of(tasks):
    """``(T, T)``: how many samples of each task's classes a task has."""
    return torch.stack([torch.bincount(LABELS[task] // 2, minlength=5) for task in tasks])


@pytest.mark.parametrize("decay", ["power", "exponential"])
@pytest.mark.parametrize("task", [0, 1, 7])
def test_weights_add_up_to_one_and_decay_as_told(decay, task):
    weights = mixture_weights(task, decay, 0.7)
    loop = [(task - j + 1) ** -0.7 if decay == "power" else np.exp(-0.7 * (task - j)) for j in range(task + 1)]
    np.testing.assert_allclose(weights, np.array(loop) / sum(loop))
    assert mixture_weights(task, decay, 0.7, share=0.25).sum() == pytest.approx(1)
    np.testing.assert_allclose(mixture_weights(task, decay, 0.7, share=0.25)[:task], 0.25 * weights[:task])


def test_every_task_brings_its_own_samples_once_and_old_ones():
    tasks, plain = tasks_of(), BASE.train_tasks(LABELS, None, 10, 0)
    for task, (mixed, own) in enumerate(zip(tasks, plain, strict=True)):
        current = mixed[LABELS[mixed] // 2 == task]
        assert torch.equal(current.sort().values, own)
        assert int((LABELS[mixed] // 2).max()) == task  # nothing of the future
        assert len(mixed) > len(own) or task == 0
    assert not torch.equal(tasks[0], tasks[0].sort().values)


def test_expected_counts_of_a_mixture():
    found = counts_of(tasks_of(rate=1.5))
    for task in range(5):
        for old in range(task):
            expected = 800 * (task - old + 1) ** -1.5
            assert abs(int(found[task, old]) - expected) < 4 * np.sqrt(expected)


def test_a_fixed_share_of_the_batch_is_mixed():
    found = counts_of(tasks_of(mixed_share=0.5))
    weights = mixture_weights(3, "power", 1.0, share=0.5)
    shares = found[3, :4] / found[3].sum()
    np.testing.assert_allclose(shares, weights[:4], atol=0.04)
    assert torch.equal(counts_of(tasks_of(mixed_share=0.0)), torch.eye(5, dtype=torch.int64) * 800)


def test_old_samples_are_spread_over_the_task():
    task = tasks_of(rate=0.0)[4]
    shares = [(LABELS[part] // 2 < 4).float().mean() for part in task.chunk(8)]
    assert all(abs(float(s) - 0.8) < 4 * np.sqrt(0.16 / 500) for s in shares)


def test_rate_zero_is_uniform_multi_task_training():
    found = counts_of(tasks_of(rate=0.0))
    assert found[4].sum() == 5 * 800
    assert all(abs(int(n) - 800) < 4 * np.sqrt(800) for n in found[4])


@pytest.mark.parametrize("options", [{"rate": 60.0}, {"decay": "exponential", "rate": 60.0}])
def test_a_large_rate_is_plain_sequential_training(options):
    assert torch.equal(counts_of(tasks_of(**options)), torch.eye(5, dtype=torch.int64) * 800)


def test_counts():
    found = counts_of(tasks_of(mode="counts", samples=100, rate=1.0))
    assert found[4].tolist() == [25, 33, 50, 100, 800]
    found = counts_of(tasks_of(mode="counts", samples=100, decay="exponential"))
    assert found[2].tolist() == [61, 100, 800, 0, 0]
    assert counts_of(tasks_of(mode="counts", samples=2000, rate=0.0))[1].tolist() == [2000, 800, 0, 0, 0]


def test_no_sample_comes_again_before_all_have_come():
    drawn = draw(np.arange(7), 17, np.random.RandomState(0))
    assert sorted(np.bincount(drawn).tolist()) == [2, 2, 2, 2, 3, 3, 3]
    assert len(draw(np.arange(7), 0, np.random.RandomState(0))) == 0
    assert recurrence(np.array([0, 1]), "power", 1.0).tolist() == [1.0, 0.5]
    assert rehearsal_counts([5], "mixture", "power", 1.0, 1.0, np.random.RandomState(0)).tolist() == []


def test_rehearsal_shares():
    shares = PowerLaw(BASE, "counts", samples=800, rate=0.0).rehearsal_shares(LABELS, None, 10)
    assert shares == pytest.approx([0, 1 / 2, 2 / 3, 3 / 4, 4 / 5])


def test_evaluation_is_that_of_the_tasks():
    domains = torch.arange(4000) // 1000
    scenario = PowerLaw(DomainIncremental(), seed=0)
    tasks = scenario.train_tasks(LABELS, domains, 10, 0)
    assert [sorted(set(domains[task].tolist())) for task in tasks] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    parts = scenario.eval_tasks(LABELS, domains, 10, 0, [list(range(10))] * 4)
    assert [set(domains[part].tolist()) for part in parts] == [{0}, {1}, {2}, {3}]


def test_the_seed_decides():
    first, again, other = (torch.cat(tasks_of(seed=s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert first.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "batch"}, "`mode` is 'batch'; expected 'mixture' or 'counts'"),
        ({"decay": "linear"}, "`decay` is 'linear'; expected 'power' or 'exponential'"),
        ({"rate": -1.0}, "`rate` is -1.0; give a number of at least 0"),
        ({"mixed_share": 1.5}, "`mixed_share` is 1.5; give a share of the batch"),
        ({"samples": -1}, "`samples` is -1"),
        ({"order": "random"}, "`order` is 'random'"),
    ],
)
def test_wrong_arguments_fail_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        PowerLaw(BASE, **options)
