"""GSS-Greedy: the specification's numbers, which slots compete, and a batch that changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_cl.nn.replay import GradientBased, ReplayBuffer
from lightning_cl.nn.replay.gradient_based import candidate_weights, replacement_share


def share(new: float, old: float) -> float:
    return float(replacement_share(torch.tensor([new]).double(), torch.tensor([old]).double()))


def test_the_toss_goes_by_both_scores() -> None:
    assert pytest.approx(0.8536, abs=1e-4) == (0.7071 + 1) / 2  # the newcomer's weight of the specification
    assert share(0.7071, 0.7071) == 0.5
    assert share(-1.0, 0.3) == 1.0
    assert share(0.3, -1.0) == 0.0
    assert share(0.5, 0.0) == pytest.approx(0.5 / (0.75 + 0.5))
    assert share(-1.0, -1.0) == 0.5


def test_the_least_similar_sample_is_no_candidate_unless_all_are_alike() -> None:
    weights = candidate_weights(torch.tensor([0.1, 0.5, 0.9]).double())
    assert weights.tolist() == pytest.approx([0, 0.4 / 0.81, 0.8 / 0.81])
    assert candidate_weights(torch.full((3,), 0.2)).tolist() == [1, 1, 1]


def offer(buffer: ReplayBuffer, labels: list[int], scores: list[float], batch: float) -> None:
    features = torch.tensor([[score, batch] for score in scores], dtype=torch.float64)
    buffer.add(torch.tensor(labels), torch.tensor(labels), features)


def filled(scores: list[float], seed: int = 0) -> ReplayBuffer:
    buffer = ReplayBuffer(len(scores), GradientBased(), seed=seed)
    offer(buffer, list(range(len(scores))), scores, 0.9)
    return buffer


def test_while_there_is_room_all_is_kept_and_then_only_what_points_elsewhere() -> None:
    buffer = filled([0.1, 0.4, 0.8])
    assert buffer.labels.tolist() == [0, 1, 2]
    offer(buffer, [7, 8], [-1.0, -1.0], batch=0.2)  # the batch is like the memory
    assert buffer.labels.tolist() == [0, 1, 2]
    offer(buffer, [7, 8], [-1.0, -1.0], batch=-0.2)  # certain: both candidates are replaced
    assert buffer.labels[0] == 0
    assert sorted(buffer.labels.tolist()) == [0, 7, 8]
    assert buffer.policy.scores.tolist() == [pytest.approx(0.1), -1.0, -1.0]
    offer(buffer, [9, 10, 11], [-1.0] * 3, batch=-1.0)  # one slot alone has a weight
    assert int((buffer.labels >= 9).sum()) == 1


def test_items_without_scores_stay_out_and_the_state_comes_back() -> None:
    buffer = filled([0.1, 0.4, 0.8])
    buffer.add(torch.tensor([5]), torch.tensor([5]))
    assert buffer.labels.tolist() == [0, 1, 2]
    other = ReplayBuffer(3, GradientBased(), seed=9)
    other.load_state_dict(buffer.state_dict())
    for one in (buffer, other):
        offer(one, [7], [0.0], -0.5)
    assert torch.equal(buffer.labels, other.labels)
    assert torch.equal(buffer.policy.scores, other.policy.scores)


def test_how_often_a_slot_is_taken_is_as_the_toss_says() -> None:
    taken: list[Tensor] = []
    for seed in range(400):
        buffer = filled([0.0, 1.0], seed)
        offer(buffer, [7], [0.0], -0.5)
        taken.append(buffer.labels[1] == 7)
    assert float(torch.stack(taken).double().mean()) == pytest.approx(2 / 3, abs=0.08)
