"""ReLoop2: what is written in a step, what an evaluation answers, and that training is not changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_cl.callbacks import ContinualCallback, FineTuning, ReLoop2

from ..by_hand import CLASSES, Net, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("kind", ["nearest", "sketch"])
def test_training_is_that_of_fine_tuning(kind: Any) -> None:
    plain, found = run(FineTuning(train_mask="seen")), run(ReLoop2(kind=kind))
    expected = weights(plain)
    assert all(torch.equal(value, expected[name]) for name, value in weights(found).items())


class First(ContinualCallback):
    """What the memory holds after the first step, and what it should."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.before = Net().double()
        self.before.load_state_dict(weights(pl_module))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 1:
            memory = pl_module.continual.parts["reloop2"].memory
            self.keys, self.errors, self.batch = memory.keys.clone(), memory.errors.clone(), batch


def test_errors_are_those_of_the_model_at_the_time() -> None:
    first = First()
    net = run(ReLoop2(capacity=20), callbacks=[first])
    images, labels = first.batch
    with torch.no_grad():
        features = first.before.body(images)
        probabilities = first.before.fc(features)[:, :2].softmax(1)  # the classes of the first task
    errors = F.one_hot(labels, CLASSES).double()
    errors[:, :2] -= probabilities
    assert_close(first.keys[:8].double(), F.normalize(features, dim=1), rtol=0, atol=1e-6)
    assert_close(first.errors[:8].double(), errors, rtol=0, atol=1e-6)
    assert int(net.continual.parts["reloop2"].memory.filled) == 3 * 2 * 20


def test_an_evaluated_answer_has_the_expected_error() -> None:
    net = run(ReLoop2(strength=0.5)).eval()
    part, images = net.continual.parts["reloop2"], torch.rand(4, 1, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        features = net.body(images)
        plain = (features @ net.fc.weight.T + net.fc.bias).softmax(1)
        expected = (plain + 0.5 * part.memory.read(features)).clamp(0, 1)
        found = net(images).exp()
    assert_close(found, expected, rtol=0, atol=1e-6)
    part.strength = 0.0
    assert_close(net(images).softmax(1), plain)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`bits` is 20, which makes 2\^20 buckets a table"):
        ReLoop2(bits=20)
    with pytest.raises(ValueError, match="`kind` is 'hash'; give one of 'nearest', 'sketch'"):
        ReLoop2(kind="hash")  # type: ignore[arg-type]
