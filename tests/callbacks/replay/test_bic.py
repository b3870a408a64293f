"""BiC: the numbers of its specification, what it keeps apart, and a whole run against the formulas typed out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lightning_cl.callbacks.replay.bic as bic
from lightning_cl.callbacks import BiC, ExperienceReplay
from lightning_cl.callbacks.replay.bic import CorrectedTeacher
from lightning_cl.nn.heads import fit_bias

from ..by_hand import CLASSES, EACH, SIZE, Net, TaughtByHand, assert_close, make_online, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_worked_example() -> None:
    """alpha 0.5, beta 0.1: (1, 2) becomes (1, 1.1)."""
    net = Net()
    net.continual_head = net.fc
    part = CorrectedTeacher(net, 1.0, 2.0, 1, 1e-3)
    z = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    assert torch.equal(part.corrected(z), z)
    part.factor[1], part.summand[1] = 0.5, 0.1
    torch.testing.assert_close(part.corrected(z), torch.tensor([[1.0, 1.1, 3.0, 4.0, 5.0, 6.0]]))


class BiCByHand(TaughtByHand):
    """The corrections of earlier tasks are given; the loss is ``l KD + (1 - l) CE``, divided by ``1 - l``."""

    def __init__(self, net: Any) -> None:
        self.corrections = net.corrections
        super().__init__(net, seen=True)

    def corrected(self, z: Tensor) -> Tensor:
        factor, summand = self.corrections[self.task - 1] if self.task else (1.0, 0.0)
        return z * factor + summand

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        share = self.task / (self.task + 1)
        z = self.corrected(self.net(x))
        loss = (1 - share) * F.cross_entropy(z[:, self.classes], y)
        if self.teacher is not None:
            p = F.softmax(self.corrected(self.teacher(x))[:, self.old].detach() / 2, dim=1)
            loss = loss + share * -(p * F.log_softmax(z[:, self.old] / 2, dim=1)).sum(1).mean()
        return loss / (1 - share)


class Watching(Net):
    """Keeps the correction at every task's end."""

    def __init__(self) -> None:
        super().__init__()
        self.corrections: list[Any] = []

    def on_task_end(self, task: Any) -> None:
        super().on_task_end(task)
        part = self.continual.parts["bic"]  # type: ignore[operator, index, union-attr]
        self.corrections.append((part.factor.clone().double(), part.summand.clone().double()))


def watching() -> Watching:
    from ..by_hand import start

    net = Watching()
    net.load_state_dict(start())
    return net


METHOD = {"memory_size": 30, "batch_size": 6, "held_out": 0.2, "epochs": 20, "lr": 0.01}


@pytest.fixture(scope="module")
def finished() -> tuple[Any, list[Any]]:
    """A run, and what the scalars were fitted on."""
    fits: list[Any] = []

    def fit(logits: Tensor, places: Tensor, new: Tensor, **options: Any) -> Any:
        fits.append((logits, places, new))
        return fit_bias(logits, places, new, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bic, "fit_bias", fit)
        return run(BiC(**METHOD), net=watching()), fits


def test_a_run_equals_the_formulas(finished: Any) -> None:
    net, _ = finished
    assert_close(net, BiCByHand(net))


def test_two_scalars_change_at_a_task_s_end(finished: Any) -> None:
    """Those of its new classes, alike; the first task has none."""
    before = (torch.ones(CLASSES, dtype=torch.float64), torch.zeros(CLASSES, dtype=torch.float64))
    for task, after in enumerate(finished[0].corrections):
        new = torch.arange(CLASSES) // SIZE == task
        for then, now in zip(before, after, strict=True):
            assert torch.equal(now[~new], then[~new])
            assert len(now[new].unique()) == 1
            assert bool((now[new] != then[new]).all()) == (task > 0)
        before = after


def test_the_fit_is_balanced_and_sees_what_was_not_trained_on(finished: Any) -> None:
    """Two of ten samples of each class stay out of every batch, and six slots of the memory are theirs."""
    net, fits = finished
    images = {image.numpy().tobytes() for batches in net.tasks for x, _ in batches for image in x}
    assert len(images) == CLASSES * (EACH - 2)
    assert len(net.continual.memory.buffer.labels) == 24
    assert torch.bincount(net.continual.memory.apart.labels).tolist() == [1] * CLASSES
    assert [len(logits[0]) for logits, _, _ in fits] == [4, 6]
    for (_, places, new), each in zip(fits, (2, 1), strict=True):
        assert torch.bincount(places).tolist() == [each] * len(new)
        assert new.tolist() == [False] * (len(new) - SIZE) + [True] * SIZE
    held = net.continual.memory.apart.read(torch.arange(CLASSES))
    trained = net.continual.memory.buffer.read(net.continual.memory.buffer.used)
    assert not set(held.tolist()) & set(trained.tolist())


def test_without_strength_and_held_out_samples_it_is_replay() -> None:
    found = weights(run(BiC(30, 6, strength=0.0, held_out=0.0)))
    expected = weights(run(ExperienceReplay(30, 6, policy="class_balanced", reset_optimizer=True)))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_stream_without_boundaries_is_refused_where_it_would_correct() -> None:
    with pytest.raises(ValueError, match=r"BiC fits its correction when a task ends, but .* or `held_out=0`, with"):
        run(BiC(**METHOD), stream=make_online())
    net = run(BiC(**{**METHOD, "held_out": 0.0}), stream=make_online())
    assert bool((net.continual.memory.buffer.labels >= 0).all())
    assert torch.equal(net.continual.parts["bic"].factor, torch.ones(CLASSES, dtype=torch.float64))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strength": -1.0}, "`strength` is -1.0; give at least 0"),
        ({"held_out": 1.0}, "`held_out` is 1.0, which leaves 0 of 500 slots for batches of 32"),
        ({"lr": 0.0}, "`lr` is 0.0; give a number above 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BiC(**arguments)
