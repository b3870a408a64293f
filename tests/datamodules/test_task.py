from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.datamodules.task import Schedule, StreamInfo, Task

epochs_per_task = st.lists(st.integers(1, 5), min_size=1, max_size=6).map(tuple)

INFO = StreamInfo(3, 4, ("ant", "bee", "cat", "dog"), ((1, 3), (0, 1), (2,)), "ab12")


def test_seen_classes_are_sorted_and_counted_once():
    assert [INFO.seen_classes(task) for task in range(3)] == [(1, 3), (0, 1, 3), (0, 1, 2, 3)]


def test_info_goes_round_through_plain_values():
    state = INFO.state_dict()
    assert all(isinstance(value, (int, str, list)) for value in state.values())
    assert StreamInfo.from_state_dict(state) == INFO


def test_old_classes_are_those_that_are_not_new():
    assert Task(2, (1, 3), (3,), (0, 1, 3, 4), first_epoch=0, epochs=1).old_classes == (0, 1, 4)
    assert Task(0, (1, 3), (1, 3), (1, 3), first_epoch=0, epochs=1).old_classes == ()


def test_last_epoch_is_inclusive():
    assert Task(1, (0,), (0,), (0, 1), first_epoch=3, epochs=2).last_epoch == 4


@given(epochs_per_task)
def test_every_epoch_belongs_to_the_task_that_covers_it(epochs):
    schedule = Schedule(epochs)
    owners = [task for task, count in enumerate(epochs) for _ in range(count)]
    assert [schedule.task_at(epoch) for epoch in range(schedule.total)] == owners
    assert schedule.task_at(schedule.total + 7) == len(epochs) - 1
    for task in range(len(epochs)):
        covered = [epoch for epoch, owner in enumerate(owners) if owner == task]
        assert (schedule.first_epoch(task), schedule.last_epoch(task)) == (covered[0], covered[-1])


@given(epochs_per_task, st.data())
def test_a_shortened_task_moves_only_the_later_ones(epochs, data):
    schedule = Schedule(epochs)
    task = data.draw(st.integers(0, len(epochs) - 1))
    count = data.draw(st.integers(1, epochs[task]))
    shorter = schedule.shortened(task, count)
    assert shorter.epochs[task] == count
    assert shorter.total == schedule.total - (epochs[task] - count)
    assert [shorter.first_epoch(t) for t in range(task + 1)] == [schedule.first_epoch(t) for t in range(task + 1)]


def test_schedule_from_one_number_or_one_per_task():
    assert Schedule.build(2, 3).epochs == (2, 2, 2)
    assert Schedule.build([1, 2, 3], 3).epochs == (1, 2, 3)


def test_a_wrong_number_of_epochs_is_named():
    with pytest.raises(ValueError, match="2 entries but the stream has 3 tasks; give one number, or one per task"):
        Schedule.build([1, 2], 3)
    with pytest.raises(ValueError, match=r"at least one epoch, but the epochs per task are \[1, 0\]"):
        Schedule((1, 0))
    with pytest.raises(ValueError, match="at least one epoch"):
        Schedule(())
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"task 1 has 3 epochs; it cannot be shortened to {count}"):
            Schedule((2, 3)).shortened(1, count)


def test_classes_of_several_tasks():
    held = ((0, 3), (1, 3), (0, 2, 3), ())
    assert replace(INFO, num_tasks=4, classes_per_task=held).repeated_classes == [0, 3]
    assert replace(INFO, num_tasks=2, classes_per_task=((0, 1), (2, 3))).repeated_classes == []
