"""iCaRL: a whole run, its exemplars and its means, against the paper's algorithms typed out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import ICaRL

from ..by_hand import SIZE, Net, assert_close, make_online, run
from ..distillation.test_lwf_mc import LwFMCByHand

pytestmark = pytest.mark.filterwarnings("ignore")
MEMORY = 13


class ICaRLByHand(LwFMCByHand):
    """Ordered lists of exemplars, chosen by the loop of algorithm 4 and cut by algorithm 5."""

    def __init__(self, net: Net) -> None:
        self.lists: dict[int, list[Tensor]] = {}
        super().__init__(net, seen=True)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        known = {image.numpy().tobytes() for images in self.lists.values() for image in images}
        for image, label in zip(x, y, strict=True):
            assert label >= self.task * SIZE or image.numpy().tobytes() in known
        return super().loss(x, y)

    def unit(self, image: Tensor) -> Tensor:
        f = self.net.body(image[None])[0].detach()
        return f / f.norm()

    def end(self, x: Tensor, y: Tensor) -> None:
        super().end(x, y)
        size = MEMORY // ((self.task + 1) * SIZE)
        self.lists = {label: images[:size] for label, images in self.lists.items()}
        for label in range(self.task * SIZE, (self.task + 1) * SIZE):
            left, chosen = list(x[y == label]), list[Tensor]()
            mean = sum(self.unit(image) for image in left) / len(left)
            for k in range(1, size + 1):
                so_far = sum((self.unit(image) for image in chosen), torch.zeros(9))
                gaps = [float((mean - (self.unit(image) + so_far) / k).norm()) for image in left]
                chosen.append(left.pop(gaps.index(min(gaps))))
            self.lists[label] = chosen

    def means(self) -> Tensor:
        return torch.stack([sum(map(self.unit, self.lists[c])) / len(self.lists[c]) for c in sorted(self.lists)])


@pytest.fixture(scope="module")
def finished() -> Any:
    return run(ICaRL(MEMORY, 5))


def test_a_run_equals_the_paper_s_algorithms(finished: Any) -> None:
    """Weights, exemplars (the means are of them), and the nearest mean as the answer."""
    hand = ICaRLByHand(finished)
    assert_close(finished, hand)
    means, memory = hand.means(), finished.continual.memory
    torch.testing.assert_close(finished.continual.parts["icarl"].means.means, means)
    assert torch.bincount(memory.buffer.labels[memory.buffer.labels >= 0]).tolist() == [MEMORY // 6] * 6
    x = torch.rand(50, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4 - 2
    units = means / means.norm(dim=1, keepdim=True)
    nearest = [int((units - hand.unit(image)).norm(dim=1).argmin()) for image in x]
    finished.eval()
    assert finished(x).argmax(1).tolist() == nearest
    finished.train()
    torch.testing.assert_close(finished(x), hand.net(x))  # the head answers while training


def test_evaluation_within_a_task_is_the_head_s(finished: Any) -> None:
    """The means are of features that change."""
    part = finished.continual.parts["icarl"]
    finished.eval()
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64)
    assert finished(x).abs().max() <= 1 + 1e-9  # cosines
    part.start_task(finished, None)
    features, head = finished.body(x), finished.fc  # whose call would be answered by the method, too
    torch.testing.assert_close(finished(x), F.linear(features, head.weight, head.bias))
    part.finished.set(1)


def test_a_memory_smaller_than_the_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"an exemplar of each of the 6 classes at least, but `memory_size` is 5"):
        run(ICaRL(5, 5))


def test_a_stream_without_boundaries_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ICaRL chooses its exemplars when a task ends, but .* `ExperienceReplay`"):
        run(ICaRL(MEMORY, 5), stream=make_online())
