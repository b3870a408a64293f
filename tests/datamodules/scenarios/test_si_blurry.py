from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lightning_cl.datamodules import ClassIncremental, IBlurry, SiBlurry
from lightning_cl.datamodules.scenarios.blurry import BlurrySetting, fill_task, random_sizes

PUBLISHED = {"blur_select": "dataset_order", "keep_all_classes": False}
SEEDS = range(1, 6)


def labels_of(count, num_classes=100):
    return torch.arange(count) % num_classes


def drawn(scenario, labels, num_classes=100, seed=0):
    return scenario.train_tasks(labels, None, num_classes, seed), scenario.report(labels, num_classes, seed)


def fingerprint(tasks):
    text = ",".join(str(i) for task in tasks for i in task.tolist())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sizes(tasks):
    return [len(task) for task in tasks]


def span(tasks, labels, classes):
    """Number of the classes that arrive in several tasks."""
    held = [set(labels[task].tolist()) for task in tasks]
    return sum(sum(c in part for part in held) > 1 for c in classes)


# ---------------------------------------------------------------- as published, bit for bit


def test_the_published_stream_in_numbers():
    labels = labels_of(10_000)
    tasks, report = drawn(SiBlurry(seed=1, **PUBLISHED), labels)
    assert sizes(tasks) == [1300, 600, 2028, 4400, 1672]
    assert [len(held) for held in report.disjoint_classes] == [3, 0, 20, 14, 13]
    assert [len(held) for held in report.blurry_classes] == [10, 6, 0, 30, 4]
    assert (report.quotas, report.pool_size) == ((50, 97, 28, 208, 117), 472)
    assert report.disjoint_classes[0] == (45, 15, 90)
    assert report.blurry_classes[0][:3] == (46, 39, 92)
    stream = torch.cat(tasks).tolist()
    assert (stream[:3], stream[-3:]) == ([3509, 8304, 8404], [3438, 8970, 2931])
    assert (report.dropped_classes, report.dropped_samples, report.lost_samples) == ((), 0, 0)


@pytest.mark.parametrize(
    ("scenario", "count", "seed", "hashed", "expected", "pool"),
    [
        (SiBlurry, 10_000, 1, "b334eed2b60f067c", [1300, 600, 2028, 4400, 1672], 472),
        (SiBlurry, 10_000, 2, "27506fd4435d6b59", [900, 1900, 2700, 2100, 2400], 500),
        (IBlurry, 10_000, 1, "ce6c2089a1ae75d3", [2000] * 5, 500),
        (IBlurry, 10_000, 2, "618fe7712976a5e7", [2000] * 5, 500),
        (SiBlurry, 50_000, 1, "8a681629e731957a", [6500, 3000, 10264, 22000, 8236], 2236),
        (SiBlurry, 50_000, 2, "dd5e2c348e88b495", None, 2500),
        (SiBlurry, 50_000, 3, "30449b8342b8606e", [21000, 13000, 2500, 7500, 6000], 2500),
        (SiBlurry, 50_000, 4, "3e700b0e83dc75cd", None, 2200),
        (SiBlurry, 50_000, 5, "edde7b9276f31aac", None, 1939),
    ],
)
def test_published_streams_bit_for_bit(scenario, count, seed, hashed, expected, pool):
    tasks, report = drawn(scenario(**PUBLISHED), labels_of(count), seed=seed)
    assert fingerprint(tasks) == hashed
    assert report.pool_size == pool
    if expected is not None:
        assert sizes(tasks) == expected


def sampler_loop(labels, num_classes, num_tasks, n, m, seed, varying):
    """The documented sampler with lists and loops, typed from its description and not from our code."""
    g = torch.Generator().manual_seed(seed)
    d = num_classes * n // 100 // num_tasks * num_tasks
    b = (num_classes - d) // num_tasks * num_tasks
    order = torch.randperm(num_classes, generator=g).tolist()

    def cut(total):
        marks = sorted(torch.randint(0, total, (num_tasks - 1,), generator=g).tolist()) if total else []
        return [0, *marks, total] if total else [0] * (num_tasks + 1)

    def even(total):
        return [t * (total // num_tasks) for t in range(num_tasks + 1)]

    pools = (order[:d], order[d : d + b])
    marks = [cut(len(pool)) if varying else even(len(pool)) for pool in pools]
    owner = {c: (kind, t) for kind, (pool, at) in enumerate(zip(pools, marks, strict=True))
             for t in range(num_tasks) for c in pool[at[t] : at[t + 1]]}  # fmt: skip
    parts = [[[] for _ in range(num_tasks)] for _ in range(2)]
    for i, y in enumerate(labels.tolist()):
        if y in owner:
            kind, t = owner[y]
            parts[kind][t].append(i)
    own, pool = parts[1], []
    if varying:
        at = cut(sum(map(len, own)) * m // 100)
        quotas = [stop - start for start, stop in pairwise(at)]
    else:
        quotas = [len(part) * m // 100 for part in own]
    for t in range(num_tasks):
        pool += own[t][: quotas[t]]
        own[t] = own[t][quotas[t] :]
    pool = [pool[i] for i in torch.randperm(len(pool), generator=g).tolist()]
    fixed_size = len(pool) // num_tasks
    for t in range(num_tasks):
        size = quotas[t] if varying else fixed_size
        given, pool = pool[:size], pool[size:]
        own[t] += given
    tasks = []
    for t in range(num_tasks):
        task = parts[0][t] + own[t]
        tasks.append([task[i] for i in torch.randperm(len(task), generator=g).tolist()])
    return tasks


@st.composite
def labelled(draw, max_classes=12):
    """Labels with every class in them."""
    num_classes = draw(st.integers(1, max_classes))
    extra = draw(st.lists(st.integers(0, num_classes - 1), max_size=60))
    return torch.tensor(draw(st.permutations([*range(num_classes), *extra]))), num_classes


@given(labelled(), st.integers(1, 6), st.integers(0, 100), st.integers(0, 100), st.integers(0, 10**6), st.booleans())
def test_the_published_mode_is_the_documented_sampler(stream, num_tasks, n, m, seed, varying):
    labels, num_classes = stream
    assume(num_tasks <= num_classes)
    expected = sampler_loop(labels, num_classes, num_tasks, n, m, seed, varying)
    scenario = (SiBlurry if varying else IBlurry)(num_tasks, n, m, seed=seed, **PUBLISHED)
    if min(map(len, expected)) == 0:
        with pytest.raises(ValueError, match=rf"the seed {seed} leaves the task\(s\) \[.*\] of {num_tasks} without"):
            scenario.report(labels, num_classes)
        return
    tasks, report = scenario._stream(labels, num_classes, 0)
    assert [task.tolist() for task in tasks] == expected
    lost = sorted(set(range(len(labels))) - set(torch.cat(tasks).tolist()))
    dropped = [i for i in lost if int(labels[i]) in report.dropped_classes]
    assert len(dropped) == report.dropped_samples
    assert len(lost) - len(dropped) == report.lost_samples < num_tasks


# ---------------------------------------------------------------- by default nothing is lost


@given(
    labelled(), st.integers(1, 12), st.integers(0, 100), st.integers(0, 100), st.integers(0, 10**6),
    st.sampled_from([SiBlurry, IBlurry]), st.booleans(),
)  # fmt: skip
def test_every_sample_of_a_kept_class_comes_once_and_no_task_is_empty(stream, num_tasks, n, m, seed, kind, keep):
    labels, num_classes = stream
    assume(num_tasks <= num_classes)
    scenario = kind(num_tasks, n, m, keep_all_classes=keep, seed=seed)
    tasks, report = scenario._stream(labels, num_classes, 0)
    assert len(tasks) == num_tasks
    assert min(map(len, tasks)) > 0
    dropped = torch.isin(labels, torch.tensor(report.dropped_classes, dtype=torch.int64))
    assert sorted(torch.cat(tasks).tolist()) == (~dropped).nonzero().flatten().tolist()
    assert (report.lost_samples, report.dropped_samples) == (0, int(dropped.sum()))
    if keep:
        assert report.dropped_classes == ()
    owned = [c for held in (*report.disjoint_classes, *report.blurry_classes) for c in held]
    assert sorted([*owned, *report.dropped_classes]) == list(range(num_classes))
    for task, held in enumerate(report.disjoint_classes):  # disjoint classes are in exactly one task
        for c in held:
            assert [c in labels[part] for part in tasks] == [t == task for t in range(num_tasks)]
    owner = {c: task for task, held in enumerate(report.blurry_classes) for c in held}
    arrivals = [
        (owner[int(labels[i])], task) for task, part in enumerate(tasks) for i in part if int(labels[i]) in owner
    ]
    moved = sum(home != task for home, task in arrivals)
    assert report.moved_share == pytest.approx(moved / max(len(arrivals), 1))
    assert report.pool_size <= sum(report.quotas)
    if kind is IBlurry:
        assert report.pool_size == sum(report.quotas)
        counts = [len(d) + len(b) for d, b in zip(report.disjoint_classes, report.blurry_classes, strict=True)]
        assert max(map(len, report.blurry_classes)) - min(map(len, report.blurry_classes)) <= 1
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", [SiBlurry, IBlurry])
def test_statistics_of_a_mixed_data_set(kind, seed):
    labels = labels_of(50_000)
    tasks, report = drawn(kind(seed=seed), labels)
    assert sum(sizes(tasks)) == 50_000
    blurry = [c for held in report.blurry_classes for c in held]
    assert (len(blurry), span(tasks, labels, set(range(100)) - set(blurry))) == (50, 0)
    assert span(tasks, labels, blurry) >= 35
    if kind is IBlurry:
        assert sizes(tasks) == [10_000] * 5
        assert report.quotas == (500,) * 5
        assert 0.075 <= report.moved_share <= 0.085  # 8 %: a fifth of the tenth returns home
    else:
        assert sum(report.quotas) == 2500
        assert 0.04 <= report.moved_share <= 0.08


@pytest.mark.parametrize("seed", range(1, 11))
def test_data_sorted_by_class(seed):
    labels = torch.arange(50_000) // 500
    for options, least, most in ((PUBLISHED, 1, 12), ({"keep_all_classes": False}, 35, 50)):
        tasks, report = drawn(SiBlurry(seed=seed, **options), labels)
        assert least <= span(tasks, labels, [c for held in report.blurry_classes for c in held]) <= most


@pytest.mark.parametrize("seed", SEEDS)
def test_disjoint_and_iid_settings(seed):
    labels = labels_of(10_000)
    tasks, report = drawn(IBlurry(5, 100, 0, seed=seed), labels)
    assert sizes(tasks) == [2000] * 5
    assert [len(labels[task].unique()) for task in tasks] == [20] * 5
    assert (report.pool_size, report.moved_share) == (0, 0.0)
    tasks, report = drawn(IBlurry(5, 0, 100, seed=seed), labels)
    assert min(len(labels[task].unique()) for task in tasks) >= 98
    assert (sizes(tasks), report.pool_size) == ([2000] * 5, 10_000)


@pytest.mark.parametrize(("num_classes", "num_tasks", "absent"), [(100, 3, 1), (10, 4, 2)])
@pytest.mark.parametrize("kind", [SiBlurry, IBlurry])
def test_classes_that_the_tasks_do_not_divide(kind, num_classes, num_tasks, absent):
    labels, samples = labels_of(1000, num_classes), absent * 1000 // num_classes
    words = rf"{kind.__name__} leaves out the classes \[.*\] \({samples} samples\), because {num_tasks} tasks do not"
    with pytest.warns(UserWarning, match=words + ".*`keep_all_classes=True` keeps them"):
        tasks, report = drawn(kind(num_tasks, seed=2, keep_all_classes=False), labels, num_classes)
    assert len(report.dropped_classes) == absent == num_classes - len(labels[torch.cat(tasks)].unique())
    tasks, report = drawn(kind(num_tasks, seed=2), labels, num_classes)
    assert (report.dropped_classes, sum(sizes(tasks))) == ((), 1000)


def test_a_rest_of_disjoint_classes_stays_disjoint():
    labels = labels_of(100, 10)
    report = IBlurry(3, disjoint_class_pct=100).report(labels, 10)
    assert [len(held) for held in report.disjoint_classes] == [4, 3, 3]
    report = IBlurry(3, disjoint_class_pct=60).report(labels, 10)
    assert [len(held) for held in (*report.disjoint_classes, *report.blurry_classes)] == [2, 2, 2, 2, 1, 1]


def test_the_lost_remainder_is_counted_and_said():
    labels = torch.tensor([0, 1, 2, 3, 4] * 10 + [4] * 4)  # 30 % of 10, 10, 10, 10 and 14 samples: a pool of 16
    with pytest.warns(
        UserWarning, match=r"IBlurry loses 1 of 16 samples that it dealt out again, because 5 tasks do not"
    ):
        tasks, report = drawn(IBlurry(5, 0, 30, **PUBLISHED), labels, 5)
    assert (report.pool_size, report.lost_samples, sum(sizes(tasks))) == (16, 1, 53)
    tasks, report = drawn(IBlurry(5, 0, 30), labels, 5)
    assert (report.pool_size, report.lost_samples, sum(sizes(tasks))) == (16, 0, 54)


def test_no_disjoint_class_is_said():
    with pytest.warns(
        UserWarning, match=r"SiBlurry has no disjoint class: `disjoint_class_pct=50` is less than one for"
    ):
        SiBlurry(6).train_tasks(labels_of(100, 10), None, 10, 0)


# ---------------------------------------------------------------- empty tasks


def test_a_task_that_would_be_empty():
    labels = labels_of(40, 4)
    scenario = {"num_tasks": 4, "disjoint_class_pct": 100, "blurry_sample_pct": 0, "seed": 0}
    words = (
        r"the seed 0 leaves the task\(s\) \[.+\] of 4 without a sample.*use another `seed`, fewer tasks or more classes"
    )
    with pytest.raises(ValueError, match=words):
        SiBlurry(**scenario, **PUBLISHED).train_tasks(labels, None, 4, 0)
    tasks, report = drawn(SiBlurry(**scenario), labels, 4)
    assert [len(held) for held in report.disjoint_classes] == [1, 1, 1, 1]
    assert sizes(tasks) == [10] * 4
    assert report.filled_tasks


def test_a_task_that_gives_all_of_its_samples_keeps_one_if_the_others_leave_it_none():
    labels = torch.tensor([0, *[1] * 10, 2])
    with pytest.raises(ValueError, match=r"the seed 7 leaves the task\(s\) \[2\] of 3 without a sample"):
        SiBlurry(3, 0, 100, seed=7, **PUBLISHED).report(labels, 3)
    tasks, report = drawn(SiBlurry(3, 0, 100, seed=7), labels, 3)
    assert (report.blurry_classes, report.filled_tasks) == (((0,), (1,), (2,)), ())
    assert sizes(tasks) == [4, 7, 1]
    assert labels[tasks[2]].tolist() == [2]


def test_the_donor_has_the_most_classes_and_the_class_stays_what_it_was():
    disjoint, blurry = fill_task(((1, 2), (), (3,)), ((4,), (), (5, 6)), 1)
    assert (disjoint, blurry) == (((1,), (2,), (3,)), ((4,), (), (5, 6)))
    disjoint, blurry = fill_task(((1,), (), (3,)), ((4,), (), (5, 6)), 1)
    assert (disjoint, blurry) == (((1,), (), (3,)), ((4,), (6,), (5,)))


@given(st.integers(0, 50), st.integers(1, 9), st.integers(0, 1000))
def test_random_sizes(count, parts, seed):
    cut = random_sizes(count, parts, torch.Generator().manual_seed(seed))
    assert (len(cut), sum(cut)) == (parts, count)
    assert min(cut) >= 0
    assert cut[-1] >= min(count, 1)


# ---------------------------------------------------------------- seeds, order, evaluation


@pytest.mark.parametrize("kind", [SiBlurry, IBlurry])
@pytest.mark.parametrize("options", [{}, PUBLISHED])
def test_the_stream_is_its_seed_s_and_touches_no_other_generator(kind, options):
    labels = labels_of(1000)
    before = torch.get_rng_state()
    first = fingerprint(kind(**options).train_tasks(labels, None, 100, 3))
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert first == fingerprint(kind(**options).train_tasks(labels, None, 100, 3))
    assert first == fingerprint(kind(seed=3, **options).train_tasks(labels, None, 100, 8))
    assert first != fingerprint(kind(**options).train_tasks(labels, None, 100, 4))


def test_a_given_class_order_leaves_the_cuts_as_they_are():
    labels, order = labels_of(1000), list(range(99, -1, -1))
    plain, given_order = (SiBlurry(class_order=o, seed=1).report(labels, 100) for o in (None, order))
    assert [len(held) for held in plain.disjoint_classes] == [len(held) for held in given_order.disjoint_classes]
    assert plain.quotas == given_order.quotas
    assert [c for held in given_order.disjoint_classes for c in held] == order[:50]
    assert [c for held in given_order.blurry_classes for c in held] == order[50:]
    with pytest.raises(ValueError, match="the order has 2 entries"):
        SiBlurry(class_order=[0, 1]).report(labels, 100)


def test_evaluation_is_by_the_first_task_that_holds_a_class():
    labels = labels_of(1000)
    scenario = SiBlurry(blurry_sample_pct=50, seed=1)
    tasks, _ = drawn(scenario, labels)
    held = [labels[task].unique().tolist() for task in tasks]
    first = {}
    for task, classes in enumerate(held):
        for c in classes:
            first.setdefault(c, task)
    parts = scenario.eval_tasks(labels, None, 100, 0, held)
    assert sum(sizes(parts)) == 1000
    for task, part in enumerate(parts):
        assert {first[c] for c in labels[part].tolist()} <= {task}


def test_they_are_online_streams():
    assert SiBlurry().order == IBlurry().order == "stream"
    assert ClassIncremental(2).order == "shuffled"


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tasks": 0}, "`num_tasks` is 0; give at least 1"),
        ({"disjoint_class_pct": 101}, "`disjoint_class_pct` is 101; give a whole percentage, 0 to 100"),
        ({"blurry_sample_pct": -1}, "`blurry_sample_pct` is -1; give a whole percentage, 0 to 100"),
        ({"disjoint_class_pct": 0.5}, "`disjoint_class_pct` is 0.5; .* 0 to 100 .50 for one half"),
        ({"blurry_sample_pct": "10"}, "`blurry_sample_pct` is '10'; give a whole percentage"),
        ({"blur_select": "first"}, "`blur_select` is 'first'; expected 'random' or 'dataset_order'"),
    ],
)
@pytest.mark.parametrize("kind", [SiBlurry, IBlurry])
def test_wrong_arguments_fail_at_construction(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_an_unknown_mode():
    with pytest.raises(ValueError, match="`mode` is 'random'; expected 'varying' or 'fixed'"):
        BlurrySetting(mode="random")


def test_more_tasks_than_classes():
    with pytest.raises(ValueError, match="`num_tasks` is 5 but there are 4 classes; use at most 4"):
        SiBlurry().train_tasks(labels_of(40, 4), None, 4, 0)


def test_a_class_without_samples():
    with pytest.raises(ValueError, match=r"the classes \[1\] have no training samples"):
        IBlurry(2).train_tasks(torch.tensor([0, 2, 2]), None, 3, 0)
