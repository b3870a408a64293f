"""The tricks of few-shot learning: all off they are class means exactly; each alone against its formula."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import (
    TEEN,
    PreassignedPrototypes,
    PseudoClasses,
    RotationTask,
    SubnetTuning,
    SupervisedContrast,
)
from lightning_cl.callbacks.few_shot.base_term import turned, with_images
from lightning_cl.datamodules import FewShot
from lightning_cl.nn.losses import supervised_contrastive
from lightning_cl.training.batch import Inputs
from lightning_cl.training.last_stage import last_parameters

from ..by_hand import CLASSES, LR, Net, make_stream, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")
IMAGES = torch.randn(5, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def fitted(*tricks: Any, **options: Any) -> Net:
    """Class means of what the base session learned, with tricks: two base classes, two sessions of two classes."""
    stream = make_stream(scenario=FewShot(2, 2, 3), epochs_per_task=[2, 1, 1], **options)
    return run(TEEN(alpha=0.0), callbacks=tricks, stream=stream)


@cache
def plain() -> Net:
    return fitted()


def test_all_off_is_class_means_exactly() -> None:
    off = (SupervisedContrast(0.0), PseudoClasses(0.0), RotationTask(0.0), SubnetTuning(0))
    found, expected = fitted(*off), plain()
    assert all(torch.equal(weights(found)[name], value) for name, value in weights(expected).items())
    answers = expected.eval()(IMAGES)
    assert torch.equal(found.eval()(IMAGES), answers)
    bank, features = expected.continual.parts["teen"].bank, expected.body(IMAGES)
    torch.testing.assert_close(answers, 16 * F.cosine_similarity(features[:, None], bank.means[None], dim=2))


def test_every_trick_changes_what_is_learned_and_all_of_them_together() -> None:
    alone = [SupervisedContrast(), PseudoClasses(), RotationTask(), PreassignedPrototypes()]
    answers = [fitted(trick).eval()(IMAGES) for trick in alone]
    answers += [fitted(SubnetTuning(2, lr=0.1)).eval()(IMAGES)]
    together = (SupervisedContrast(), PseudoClasses(), RotationTask(), PreassignedPrototypes(), SubnetTuning(2, lr=0.1))
    answers += [fitted(*together).eval()(IMAGES), plain().eval()(IMAGES)]
    for i, one in enumerate(answers):
        assert one.shape == (5, CLASSES)
        assert one.isfinite().all()
        assert all(not torch.equal(one, other) for other in answers[:i])


def test_a_quarter_turn_of_each_image() -> None:
    images = torch.arange(4.0).view(1, 1, 2, 2).repeat(4, 1, 1, 1)  # 0 1 / 2 3
    found = turned(images, torch.tensor([0, 1, 2, 3])).flatten(1).tolist()
    assert found == [[0, 1, 2, 3], [1, 3, 0, 2], [3, 2, 1, 0], [2, 0, 3, 1]]


@pytest.mark.parametrize("inputs", [torch.zeros(2, 5), torch.zeros(2, 1, 4, 3), {"image": 1}])
def test_only_square_images_are_turned(inputs: Any) -> None:
    with pytest.raises(ValueError, match=r"RotationTask turns images .* but the batch has"):
        with_images(inputs, torch.neg, "RotationTask")


def test_other_inputs_beside_the_images_stay() -> None:
    found = with_images(Inputs({"mask": torch.ones(2, 3), "images": torch.ones(2, 1, 4, 4)}), torch.neg, "RotationTask")
    assert found.parts["mask"].sum() == 6
    assert found.parts["images"].sum() == -32


def first_step(trick: Any, part: str) -> tuple[Net, Tensor, Tensor, dict[str, Tensor]]:
    """The untrained network, the first batch, and the trick's own parameters before it, after one step of training."""
    own: dict[str, Tensor] = {}

    class Watched(Net):
        def on_task_start(self, task: Any) -> None:
            super().on_task_start(task)
            own.update({name: p.detach().clone() for name, p in self.continual.parts[part].named_parameters()})

    net = Watched()
    net.load_state_dict(start())
    stream = make_stream(scenario=FewShot(2, 2, 3), epochs_per_task=[2, 1, 1])
    run(TEEN(alpha=0.0), callbacks=[trick], stream=stream, net=net, max_steps=1)
    fresh = Net().double()
    fresh.load_state_dict(start())
    (x, y), *_ = net.tasks[0]
    moved = {name: (value - start()[name]) / -LR for name, value in weights(net).items()}  # the gradient of the step
    own["gradient"] = moved["body.1.weight"]
    return fresh, x, y, own


def cosine_loss(net: Net, x: Tensor, y: Tensor) -> Tensor:
    logits = 16 * F.cosine_similarity(net.body(x)[:, None], net.fc.weight[None, :2], dim=2)
    return F.cross_entropy(logits, y)


def assert_gradient(net: Net, loss: Tensor, expected: Tensor) -> None:
    (found,) = torch.autograd.grad(loss, [net.body[1].weight])
    torch.testing.assert_close(found, expected)


def test_the_step_of_the_contrastive_term() -> None:
    net, x, y, own = first_step(SupervisedContrast(0.7, temperature=0.5), "supervisedcontrast")
    rows = torch.cat([net.body(x), net.body(x.flip(3))])
    term = supervised_contrastive(rows, torch.cat([y, y]), 0.5)
    assert_gradient(net, cosine_loss(net, x, y) + 0.7 * term, own["gradient"])


def test_the_step_of_pseudo_classes() -> None:
    """Two base classes and their two pseudo-classes compete."""
    net, x, y, own = first_step(PseudoClasses(0.7), "pseudoclasses")
    features = net.body(torch.cat([x, torch.rot90(x, 1, (2, 3))]))
    rows = torch.cat([net.fc.weight[:2], own["rows"][:2]])
    logits = 16 * F.cosine_similarity(features[:, None], rows[None], dim=2)
    assert_gradient(net, cosine_loss(net, x, y) + 0.7 * F.cross_entropy(logits, torch.cat([y, y + 2])), own["gradient"])


def test_the_step_of_fixed_prototypes() -> None:
    """Nine channels hold six rows at equal angles; the head does not move."""
    net, x, y, own = first_step(PreassignedPrototypes(), "preassignedprototypes")
    rows = run_rows()
    logits = 16 * F.cosine_similarity(net.body(x)[:, None], rows[None, :2], dim=2)
    assert_gradient(net, F.cross_entropy(logits, y), own["gradient"])


def run_rows() -> Tensor:
    from lightning_cl.nn.heads import simplex_etf

    return simplex_etf(CLASSES, 9, torch.Generator().manual_seed(0)).float().double()


def test_the_subnet_is_the_named_one_and_nothing_else_moves() -> None:
    net = fitted(SubnetTuning(3, lr=0.5, part=r"body\.1\.bias"))
    base, first, second = net.ends
    assert all(torch.equal(base[name], plain().ends[0][name]) for name in base)
    for before, after in ((base, first), (first, second)):
        assert {name for name in before if not torch.equal(before[name], after[name])} == {"body.1.bias"}


def test_a_subnet_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`part='layer9'` is in the name of no trained parameter .* body.1.bias"):
        fitted(SubnetTuning(part="layer9"))
    assert last_parameters(plain(), None, "part") == ("body.1.weight", "body.1.bias")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SupervisedContrast(-1.0), "`strength` is -1.0; give at least 0"),
        (lambda: SupervisedContrast(temperature=0.0), "`temperature` is 0.0; give a number above 0"),
        (lambda: PseudoClasses(scale=0.0), "`scale` is 0.0; give a number above 0"),
        (lambda: PreassignedPrototypes(0.0), "`scale` is 0.0; give a number above 0"),
        (lambda: SubnetTuning(-1), "`steps` is -1; give at least 0"),
        (lambda: SubnetTuning(part="("), r"`part` is '\('"),
    ],
)
def test_bad_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
