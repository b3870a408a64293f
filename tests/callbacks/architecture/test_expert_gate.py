"""Expert gate: samples find their task, experts of earlier tasks stay bit for bit."""

from __future__ import annotations

import pytest
import torch

from lightning_cl.callbacks import ExpertGate

from ..by_hand import CLASSES, EACH, Net, make_stream, run, start

pytestmark = pytest.mark.filterwarnings("ignore")


class Kept(Net):
    """Keeps the experts after every task."""

    def on_task_end(self, task) -> None:
        super().on_task_end(task)
        experts = self.continual.parts["expertgate"].experts
        self.kept = [*getattr(self, "kept", []), [p.detach().clone() for p in experts.parameters()]]


def test_samples_go_to_their_task_and_its_expert_stays() -> None:
    net = Kept(lr=0.5)
    net.load_state_dict(start())
    stream = make_stream(epochs_per_task=8)
    run(ExpertGate(hidden=16, code=4, steps=400), net=net, stream=stream)
    part = net.continual.parts["expertgate"]
    for task in range(3):
        for final, before in zip(part.experts.parameters(), net.kept[task], strict=True):
            assert torch.equal(final[task], before[task])
    images = torch.stack([stream.batch(torch.arange(CLASSES * EACH), view="eval")[0]]).flatten(0, 1).double()
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    net.eval()
    with torch.no_grad():
        right = net(images).argmax(1) == labels
        features = net.body(images)
        tasks = torch.stack([part.gate.error(t, features) for t in range(3)]).argmin(0)
    assert float((tasks == labels // 2).double().mean()) > 0.8
    assert float(right.double().mean()) > 0.7
    assert all(torch.equal(value, start()[name]) for name, value in net.state_dict().items() if name in start())


def test_a_related_task_is_taught_by_its_expert() -> None:
    near = run(ExpertGate(hidden=5, code=3, steps=5, related=-100.0))
    part = near.continual.parts["expertgate"]
    assert part.teacher.value in (0, 1)
    assert "expert" in near.continual.last_terms
    far = run(ExpertGate(hidden=5, code=3, steps=5, related=100.0))
    assert far.continual.parts["expertgate"].teacher.value == -1
    assert not far.continual.last_terms
