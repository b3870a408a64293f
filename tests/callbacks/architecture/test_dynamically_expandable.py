"""DynamicallyExpandable: its auxiliary head, and a whole run against the formulas typed out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import DynamicallyExpandable
from lightning_cl.callbacks.architecture.dynamically_expandable import NewcomerHead

from ..by_hand import CLASSES, TASKS, Net, assert_close, assert_differs, make_online, run
from .growing_by_hand import GrownByHand

pytestmark = pytest.mark.filterwarnings("ignore")


def test_old_classes_share_one_place() -> None:
    """New classes 3 and 5 of six: the logits of old, 3 and 5 are 2, 1 and 0 for any sample."""
    head = NewcomerHead(6, 2)
    with torch.no_grad():
        head.bias.fill_(9.0)[[0, 4, 6]] = torch.tensor([2.0, 1.0, 0.0])
    found = [head.loss(torch.ones(1, 2), torch.tensor([y]), torch.tensor([3, 5])).item() for y in (0, 2, 3, 5)]
    total = torch.tensor([2.0, 1.0, 0.0]).logsumexp(0).item()
    assert found == pytest.approx([total - 2, total - 2, total - 1, total], abs=1e-6)


@pytest.fixture(scope="module")
def grown() -> Any:
    return run(DynamicallyExpandable())


def test_a_run_is_that_of_the_formulas(grown: Any) -> None:
    hand = GrownByHand(grown)
    assert_close(grown, hand)
    assert_differs(grown, GrownByHand(grown, strength=0.5).net)
    part = grown.continual.parts["dynamicallyexpandable"]
    torch.testing.assert_close(part.columns.detach(), torch.stack([c.detach() for c in hand.columns]))


def test_earlier_trunks_stay_and_the_parameters_are_counted(grown: Any) -> None:
    part = grown.continual.parts["dynamicallyexpandable"]
    assert len(part.trunks) == TASKS - 1
    for copied, end in zip(part.trunks.copies, grown.ends, strict=False):
        assert all(torch.equal(value, end[name]) for name, value in copied.items())
    kept = sum(b.numel() for b in part.trunks.copies.buffers())
    assert kept == (TASKS - 1) * sum(p.numel() for p in grown.body.parameters())


def test_a_checkpoint_brings_its_trunks(grown: Any) -> None:
    """A fresh module takes them, and answers the same; one that has more gives them up."""
    fresh = Net().double()
    DynamicallyExpandable().attach_once(fresh, grown.continual.info)
    empty = {name: value.clone() for name, value in fresh.state_dict().items()}
    fresh.load_state_dict(grown.state_dict())
    x = torch.rand(4, 16, dtype=torch.float64)
    assert torch.equal(fresh.eval()(x), grown.eval()(x))
    fresh.continual.parts["dynamicallyexpandable"].trunks.copies[0]["body.1.weight"].zero_()
    assert not torch.equal(fresh(x), grown(x))
    fresh.load_state_dict(empty)
    assert len(fresh.continual.parts["dynamicallyexpandable"].trunks) == 0


def test_growing_leaves_answers_for_old_classes_if_new_columns_are_zero() -> None:
    net = Net().double()
    info = make_online().info
    DynamicallyExpandable().attach_once(net, info)
    net.continual.mask.allow(None, range(CLASSES))
    x = torch.rand(4, 16, dtype=torch.float64)
    before = net.eval()(x)
    part = net.continual.parts["dynamicallyexpandable"]
    part.grow(net, torch.Generator())
    assert not torch.allclose(net(x), before)
    with torch.no_grad():
        net.fc.weight.zero_()
        net.body[1].weight.mul_(2)  # the copy does not move
    torch.testing.assert_close(net(x), before)


def test_after_alignment_the_mean_lengths_are_equal() -> None:
    net = Net()
    DynamicallyExpandable().attach_once(net, make_online().info)
    part = net.continual.parts["dynamicallyexpandable"]
    part.grow(net, torch.Generator())
    part.align(net, [0, 1], [2, 3])
    lengths = torch.cat([part.columns[0], net.fc.weight], dim=1).norm(dim=1)
    torch.testing.assert_close(lengths[2:4].mean(), lengths[:2].mean())


def test_what_it_cannot_work_on() -> None:
    with pytest.raises(ValueError, match="`strength`"):
        DynamicallyExpandable(strength=-1)
    with pytest.raises(ValueError, match="begins a new trunk when a task ends"):
        run(DynamicallyExpandable(), stream=make_online())
    net = Net()
    net.body.requires_grad_(False)
    with pytest.raises(ValueError, match="Net trains nothing before its head"):
        DynamicallyExpandable().attach_once(net, make_online().info)


def test_a_step_that_calls_its_parts_one_by_one() -> None:
    """In training the step's inputs are known; elsewhere one sentence says what to do."""

    class Apart(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.tasks[-1].append(tuple(tensor.clone() for tensor in batch))
            return F.cross_entropy(self.fc(self.body(batch[0])), batch[1])

    net = Apart().double()
    net.load_state_dict({k: v for k, v in Net().state_dict().items()})
    apart = run(DynamicallyExpandable(), net=net)
    with pytest.raises(ValueError, match="called outside of any network that holds it"):
        apart.fc(apart.body(torch.rand(1, 16, dtype=torch.float64)))
