"""Mamba-FSCIL: what moves in which session, what is remembered, and the session's loss typed out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks import MambaFSCIL
from lightning_cl.datamodules import FewShot

from ..by_hand import Net, make_stream, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


class MapNet(Net):
    """One stage of maps, whose mean over the places reaches the head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        del self.body
        self.layer1, self.neck = nn.Conv2d(1, 9, 3, padding=1), nn.Identity()
        self.states: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.neck(self.layer1(x)).mean((2, 3)))

    def on_task_end(self, task: Any) -> None:
        super().on_task_end(task)
        self.states.append({name: value.clone() for name, value in self.continual.parts.state_dict().items()})


def fitted(**arguments: Any) -> MapNet:
    stream = make_stream(scenario=FewShot(2, 2, 3), epochs_per_task=[2, 1, 1])
    net = MapNet()
    run(MambaFSCIL(side=2, states=2, batch_size=4, **{"steps": 3, **arguments}), net=net, stream=stream)
    return net


def test_after_the_base_session_only_the_novel_branch_learns() -> None:
    net = fitted()
    base, first, second = net.ends
    assert not torch.equal(base["layer1.weight"], weights(MapNet().double())["layer1.weight"])
    assert all(torch.equal(value, base[name]) for end in (first, second) for name, value in end.items())
    for before, after in zip(net.states, net.states[1:], strict=False):
        moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
        branch = {name for name in moved if "projector" in name}
        assert branch
        assert all("projector.novel." in name for name in branch)
        assert moved - branch == {f"mambafscil.{name}" for name in ("finished.saved", "means.sums", "means.counts")}
    gate = "mambafscil.projector.novel.block.project.weight"
    assert net.states[0][gate][10:].abs().sum() == 0
    assert net.states[1][gate][10:].abs().sum() > 0


def test_one_mean_of_a_class_is_remembered() -> None:
    """Of the maps pooled to 2 x 2, and of the feature."""
    net = fitted()
    means = net.continual.parts["mambafscil"].means
    assert means.counts.tolist() == [10, 10, 3, 3, 3, 3]
    assert means.means.shape == (6, 9 * 5)
    maps, feature = means.means[:, :36].unflatten(1, (9, 4)), means.means[:, 36:]
    torch.testing.assert_close(maps.mean(2), feature)  # the mean of a map of four places is the pooled feature


def test_without_steps_the_answer_is_that_of_the_base_session() -> None:
    net = fitted(steps=0)
    part, images = net.continual.parts["mambafscil"], torch.randn(3, 1, 4, 4, dtype=torch.float64)
    maps = net.layer1(images)
    pooled = F.adaptive_avg_pool2d(maps, 2)
    h = part.projector.base(pooled)[0] + maps.mean((2, 3))
    expected = 16 * F.normalize(h, dim=1) @ part.rows.to(h).T
    torch.testing.assert_close(net.eval()(images), expected)


def test_a_stage_of_other_channels_is_refused() -> None:
    net = MapNet()
    net.layer1, net.neck = nn.Conv2d(1, 5, 3), nn.Conv2d(5, 9, 1)
    with pytest.raises(ValueError, match=r"`layer1` gives maps of 5 channels, but the head is given 9; .* `stage="):
        run(MambaFSCIL(), net=net)


def test_a_network_without_stages_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no stages were found in this Net .* name the layer .* with `stage=`"):
        run(MambaFSCIL())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strength": 0.0}, "`strength` is 0.0; give a number above 0"),
        ({"separate": -1.0}, "`separate` is -1.0; give at least 0"),
        ({"side": 0}, "`side` is 0; give at least 1"),
        ({"mixup": math.inf}, r"`mixup` is inf; give a number in \[0, 1\]"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MambaFSCIL(**arguments)
