"""Joint re-training: every task begins anew; a whole run of each remedy against its formula typed out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import ExperienceReplay, ImbalanceAwareJoint
from lightning_cl.callbacks.few_shot import imbalance_aware_joint as joint
from lightning_cl.datamodules import Cumulative, FewShot

from ..by_hand import ByHand as Plain
from ..by_hand import Net, assert_close, make_stream, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")
#: Samples of the base classes, and of the novel ones of a session.
BASE, NOVEL = 10, 3


class Restarted(Net):
    """Remembers the weights with which every task begins."""

    def __init__(self) -> None:
        super().__init__()
        self.begins: list[dict[str, Tensor]] = []

    def on_task_start(self, task: Any) -> None:
        super().on_task_start(task)
        self.begins.append(weights(self))


def fitted(method: ImbalanceAwareJoint) -> Restarted:
    net = Restarted()
    net.load_state_dict(start())
    return run(method, net=net, stream=make_stream(scenario=Cumulative(FewShot(2, 2, NOVEL))))


class JointByHand(Plain):
    """A fresh network for every task."""

    def __init__(self, net: Net, remedy: str, scale: float) -> None:
        self.remedy, self.scale, self.begun = remedy, scale, -1
        super().__init__(net, seen=True)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if self.begun != self.task:
            self.begun = self.task
            with torch.no_grad():
                for name, p in self.net.named_parameters():
                    p.copy_(start()[name])
            self.net.zero_grad()
        counts = torch.tensor([BASE] * 2 + [NOVEL] * 2 * self.task, dtype=torch.float64)
        cosines = F.cosine_similarity(self.net.body(x)[:, None], self.net.fc.weight[None, self.classes], dim=2)
        if self.remedy == "ldam":
            margins = 0.5 * counts**-0.25 / (counts**-0.25).max()
            cosines = torch.stack(
                [row - margins * (torch.arange(len(row)) == c) for row, c in zip(cosines, y, strict=True)]
            )
        logits = self.scale * cosines
        if self.remedy == "balanced_softmax":
            logits = logits + (counts / counts.sum()).log()
        each = -logits.log_softmax(1)[torch.arange(len(y)), y]
        share = (1 / counts) / (1 / counts).sum() * len(counts)
        return (each * (share[y] if self.remedy == "balanced_ce" else 1)).mean()


class SharpByHand(JointByHand):
    """Novel classes have their gradient uphill of the weights; the others at the weights."""

    def part(self, x: Tensor, y: Tensor) -> Tensor:
        """The share of the novel classes in the mean loss."""
        novel = y >= 2
        return self.loss(x[novel], y[novel]) * novel.double().mean() if bool(novel.any()) else self.net(x).sum() * 0

    def edit(self, x: Tensor, y: Tensor) -> None:
        if not self.task:
            return
        before, here = weights(self.net), self.gradients(self.part(x, y))
        known = {name: g for name, g in here.items() if g is not None}
        length = sum(float(g.square().sum()) for g in known.values()) ** 0.5
        with torch.no_grad():
            for name, p in self.net.named_parameters():
                if name in known and length:
                    p += 0.3 * known[name] / length
        uphill = self.gradients(self.part(x, y))
        with torch.no_grad():
            for name, p in self.net.named_parameters():
                p.copy_(before[name])
                if name in known and p.grad is not None:  # there is no bias in cosines
                    p.grad += uphill[name] - known[name]


@pytest.mark.parametrize("remedy", ["balanced_softmax", "balanced_ce"])
def test_a_sharpness_aware_run_equals_the_formula(remedy: Any) -> None:
    net = fitted(ImbalanceAwareJoint(remedy, scale=4.0, radius=0.3))
    assert_close(net, SharpByHand(net, remedy, 4.0))
    plain = fitted(ImbalanceAwareJoint(remedy, scale=4.0))
    assert not torch.allclose(net.fc.weight, plain.fc.weight)


@pytest.mark.parametrize("remedy", ["none", "balanced_softmax", "balanced_ce", "ldam"])
def test_a_run_equals_the_formula(remedy: Any) -> None:
    net = fitted(ImbalanceAwareJoint(remedy, scale=4.0))
    assert_close(net, JointByHand(net, remedy, 4.0))
    assert len(net.begins) == 3
    assert all(torch.equal(begin[name], value) for begin in net.begins for name, value in start().items())


def test_answers_are_cosines_without_priors() -> None:
    net, images = fitted(ImbalanceAwareJoint(scale=4.0)).eval(), torch.randn(3, 1, 4, 4).double()
    expected = 4 * F.cosine_similarity(net.body(images)[:, None], net.fc.weight[None], dim=2)
    torch.testing.assert_close(net(images), expected)


def test_effective_numbers_weigh_the_last_share_alone() -> None:
    first, second = (fitted(ImbalanceAwareJoint("ldam", deferred=share)) for share in (0.0, 0.5))
    assert not torch.equal(first.fc.weight, second.fc.weight)


@pytest.mark.parametrize("remedy", ["none", "balanced_softmax", "ldam"])
def test_a_step_of_cmo_is_the_formula_on_both_labels(remedy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draw is noted, and the loss typed out with the weights of that step."""
    made: list[tuple[int, float, Tensor]] = []
    given: dict[str, Any] = {}
    whole = joint.cutmix

    def noted(images: Tensor, others: Tensor, *where: Any) -> tuple[Tensor, float]:
        mixed, kept = whole(images, others, *where)
        given.update(mixed=mixed, kept=kept)
        return mixed, kept

    own, drawn = joint.JointTraining.own_step, joint.JointTraining._drawn_evenly

    def evenly(part: Any, *args: Any) -> Any:
        inputs, given["theirs"] = drawn(part, *args)
        return inputs, given["theirs"]

    def step_made(part: Any, step: Any) -> Any:
        loss = own(part, step)
        if loss is not None:
            task, net = step.task.index, step.module
            counts = torch.tensor([BASE] * 2 + [NOVEL] * 2 * task, dtype=torch.float64)
            rows = net.fc.weight[: len(counts)]
            cosines = F.cosine_similarity(net.body(given["mixed"])[:, None], rows[None], dim=2)
            margins = 0.5 * counts**-0.25 / (counts**-0.25).max() * (remedy == "ldam")
            each = []
            for labels in (step.targets, given["theirs"]):
                logits = 4 * (cosines - margins * F.one_hot(labels, len(counts)))
                each.append(F.cross_entropy(logits + (counts.log() if remedy == "balanced_softmax" else 0), labels))
            expected = given["kept"] * each[0] + (1 - given["kept"]) * each[1]
            torch.testing.assert_close(loss, expected)
            epoch = net.trainer.current_epoch - step.module.trainer.datamodule.task.first_epoch
            made.append((epoch, given["kept"], given["theirs"]))
        return loss

    monkeypatch.setattr(joint, "cutmix", noted)
    monkeypatch.setattr(joint.JointTraining, "own_step", step_made)
    monkeypatch.setattr(joint.JointTraining, "_drawn_evenly", evenly)
    stream = make_stream(scenario=Cumulative(FewShot(2, 2, NOVEL)), epochs_per_task=6)
    run(ImbalanceAwareJoint(remedy, scale=4.0, paste=0.7), stream=stream)
    assert {epoch for epoch, _, _ in made} == {3, 4}
    assert len({kept for _, kept, _ in made}) > 2
    novel = torch.cat([theirs for *_, theirs in made[-4:]])  # of the last session, six classes
    assert float((novel > 1).double().mean()) > 0.45  # a third of the task's samples, two thirds of what is pasted


def test_resampled_batches_hold_all_classes_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, learned = joint.JointTraining._drawn_evenly, list[tuple[int, Any, Tensor]]()
    own = joint.JointTraining.own_step

    def evenly(part: Any, step: Any, generator: Any) -> Any:
        inputs, labels = drawn(part, step, generator)
        learned.append((step.task.index, inputs, labels))
        return inputs, labels

    def step_made(part: Any, step: Any) -> Any:
        loss, net = own(part, step), step.module
        _, inputs, labels = learned[-1]
        rows = net.fc.weight[: 2 * (step.task.index + 1)]
        logits = 4 * F.cosine_similarity(net.body(inputs)[:, None], rows[None], dim=2)
        torch.testing.assert_close(loss, F.cross_entropy(logits, labels))
        return loss

    monkeypatch.setattr(joint.JointTraining, "_drawn_evenly", evenly)
    monkeypatch.setattr(joint.JointTraining, "own_step", step_made)
    net = fitted(ImbalanceAwareJoint("resample", scale=4.0))
    assert not any(net.tasks)  # no step of the user's
    last = torch.cat([labels for task, _, labels in learned if task == 2])
    assert len(last) == 2 * (2 * BASE + 4 * NOVEL)  # as many as the stream has, in two epochs
    counts = last.bincount(minlength=6).double() / len(last)
    assert float(counts[:2].sum()) < 0.45  # a third; of the task's samples they are 20 of 32
    assert float(counts.min()) > 0.06


def test_without_a_probability_nothing_is_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint, "cutmix", None)
    fitted(ImbalanceAwareJoint(paste=0.0))
    with pytest.raises(ValueError, match=r"pastes parts of images .* but the batch has \(3, 16\); set `paste=0`"):
        joint._images(torch.zeros(3, 16))


def test_sessions_without_their_past_are_refused() -> None:
    with pytest.raises(ValueError, match=r"do not hold their past; use `Cumulative\(FewShot"):
        run(ImbalanceAwareJoint(), stream=make_stream(scenario=FewShot(2, 2, NOVEL)))


def test_a_memory_beside_it_is_refused() -> None:
    with pytest.raises(ValueError, match="has the whole past in each task, so a memory would repeat what is there"):
        run(
            ImbalanceAwareJoint(),
            callbacks=[ExperienceReplay(4, batch_size=4)],
            stream=make_stream(scenario=Cumulative(FewShot(2, 2, NOVEL))),
        )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"remedy": "luck"}, "`remedy` is 'luck'; give one of"),
        ({"scale": 0.0}, "`scale` is 0.0; give a number above 0"),
        ({"deferred": 2.0}, r"`deferred` is 2.0; give a number in \[0, 1\]"),
        ({"radius": -1.0}, "`radius` is -1.0; give"),
        ({"paste": 2.0}, r"`paste` is 2.0; give a number in \[0, 1\]"),
        ({"remedy": "resample", "radius": 0.1}, "`radius` is 0.1, but .* no step is one of ImbSAM; set `radius=0`"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ImbalanceAwareJoint(**arguments)
