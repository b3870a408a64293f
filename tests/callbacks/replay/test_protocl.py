"""ProtoCL: what a run has counted is what its steps were given, and evaluations count nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_cl.callbacks import ProtoCL

from ..by_hand import CLASSES, Net, make_online, run, start

pytestmark = pytest.mark.filterwarnings("ignore")


class Watching(Net):
    """Notes the features and labels of every step, and what is known after it and after each validation."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.labels, self.between, self.validated = [], [], [], []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.features.append(self.body(batch[0]).detach())
        self.labels.append(batch[1])
        return super().training_step(batch, batch_idx)

    def on_task_end(self, task: Any) -> None:
        buffer = self.continual.memory.buffer
        self.held = buffer.read(buffer.used)  # the last batch of the task enters it later

    def on_validation_start(self) -> None:
        self.between.append(self.known())

    def on_validation_end(self) -> None:
        self.validated.append(self.known())

    def known(self) -> list[Any]:
        return [b.clone() for b in self.continual.parts["protocl"].buffers()]


def fitted(method: ProtoCL, **options: Any) -> Watching:
    net = Watching()
    net.load_state_dict(start())
    return run(method, net=net, **options)


def test_every_row_of_every_step_is_counted_and_none_of_an_evaluation() -> None:
    net = fitted(ProtoCL(30, 6, noise=0.5, refresh=False))
    head = net.continual.parts["protocl"].classes
    x, y = torch.cat(net.features), torch.cat(net.labels)
    for label in range(CLASSES):
        count = int((y == label).sum())
        assert head.counts[label] == count
        torch.testing.assert_close(head.natural[label], x[y == label].sum(0) / 0.5, rtol=1e-9, atol=1e-9)
        assert float(head.precision[label]) == pytest.approx(count / 0.5)
    assert net.between
    for before, after in zip(net.between, net.validated, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("online", [False, True])
def test_at_a_task_s_end_means_are_of_the_present_encoder(online: bool) -> None:
    """Of all samples of the last task, and of the memory for classes before; online of the memory alone."""
    method = ProtoCL(12, 6, noise=0.5)
    net = fitted(method, **({"stream": make_online()} if online else {}))
    stream, head = net.trainer.datamodule, net.continual.parts["protocl"].classes
    held, labels = net.held, stream.source.train_labels
    task = stream.layout.train_index[-1]
    for label in range(CLASSES):
        index = held[labels[held] == label]
        if not online and label in stream.task.classes:
            index = task[labels[task] == label]
        assert len(index)
        with torch.no_grad():
            expected = net.body(stream.batch(index, "eval")[0].double()).sum(0) / 0.5
        torch.testing.assert_close(head.natural[label], expected, rtol=1e-5, atol=1e-5)
        assert float(head.precision[label]) == pytest.approx(len(index) / 0.5)
