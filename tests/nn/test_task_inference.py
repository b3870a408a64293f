"""SupSup's inference: the share of the right mask lowers the entropy most."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn import binary_task, entropy_slopes, one_shot_task
from lightning_cl.nn.task_inference import chosen_answers, entropies, surest_task

LIKE = torch.zeros((), dtype=torch.float64)


def mixture(logits):
    """A network whose answer is the mixture of what each mask answers."""
    rows = torch.tensor(logits, dtype=torch.float64)
    return lambda shares: (shares[:, None] * rows).sum(0, keepdim=True)


def test_slopes_of_two_masks():
    answer = mixture([[4, 0, 0], [0.1, 0, 0]])
    slopes = entropy_slopes(answer, torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert_close(slopes, torch.tensor([-1.3352, -0.0334], dtype=torch.float64), rtol=0, atol=5e-5)
    assert one_shot_task(answer, 2, LIKE) == 0


@pytest.mark.parametrize("tasks", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("infer", [one_shot_task, binary_task])
def test_the_surest_mask_is_found(infer, tasks):
    for task in range(tasks):
        rows = [[0.1 * (k % 3), 0.0, 0.2 * (k % 2)] for k in range(tasks)]
        rows[task] = [0.0, 0.0, 6.0]
        assert infer(mixture(rows), tasks, LIKE) == task


@pytest.mark.parametrize(("tasks", "passes"), [(1, 0), (2, 1), (5, 3), (8, 3), (9, 4)])
def test_half_of_the_tasks_is_dropped_in_every_pass(tasks, passes):
    calls = []

    def answer(shares):
        calls.append(int((shares > 0).sum()))
        assert_close(shares.sum().item(), 1.0)
        return mixture([[0.1 * k, 0, 0] for k in range(tasks)])(shares)

    binary_task(answer, tasks, LIKE)
    assert len(calls) == passes
    assert calls == [-(-tasks // 2**k) for k in range(passes)]


def test_the_surest_task_of_every_sample():
    allowed = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool()
    logits = torch.zeros(2, 3, 4, dtype=torch.float64)  # without a preference at first: the first task
    logits[1, 0, 3] = 2.0  # task 1 is sure of sample 0
    logits[0, 1, 0], logits[1, 1, 2] = 2.1, 2.0  # task 0 a little surer of sample 1
    logits[1, 2, 0] = 50.0  # a class that is not task 1's own counts for nothing
    assert surest_task(logits, allowed).tolist() == [1, 0, 0]


def test_each_sample_has_the_answers_of_the_network_that_is_chosen_for_it():
    logits, allowed = torch.arange(12.0).view(2, 3, 2), torch.tensor([[True, False], [True, True]])
    answers = chosen_answers(logits, torch.tensor([1, 0, 1]), allowed)
    assert answers[[0, 2]].tolist() == [[6, 7], [10, 11]]
    assert answers[1, 0] == 2
    assert answers[1, 1] < -900


def test_entropies_of_a_known_distribution():
    assert_close(entropies(torch.tensor([[0.0, 0.0], [0.0, 1000.0]])), torch.tensor([2.0, 1.0]).log())
