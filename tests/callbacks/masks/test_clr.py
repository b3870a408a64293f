"""CLR: kernels that change nothing at first, tasks that do not touch each other, and the regulariser's gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_cl.callbacks import CLR

from ..by_hand import make_stream
from .task_runs import IMAGES, Mixed, assert_earlier_answers_stay, told_run

pytestmark = pytest.mark.filterwarnings("ignore")


class Deep(Mixed):
    """Also a convolution of one pixel; keeps what it was made of."""

    def __init__(self):
        torch.manual_seed(3)
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 4, 1), nn.Flatten()
        )
        self.start = {name: p.detach().clone().double() for name, p in self.named_parameters()}


def attached(method):
    net = Deep().double().eval()
    method.attach_once(net, make_stream().info)
    return net, net.continual.parts["clr"]


@pytest.fixture(scope="module")
def finished():
    torch.manual_seed(0)
    return told_run(CLR(), Deep())


def test_answers_for_earlier_tasks_stay(finished):
    assert_earlier_answers_stay(*finished)


def test_only_kernels_norms_and_head_are_trained(finished):
    module, _ = finished
    own = dict(module.named_parameters())
    moved = {name for name, value in module.start.items() if not torch.equal(own[name], value)}
    assert moved == {"body.1.weight", "body.1.bias", "fc.weight", "fc.bias"}
    kernels = module.continual.parts["clr"].kernels["body/0"]
    assert len({tuple(rows.flatten().tolist()) for rows in kernels}) == 3
    statistics = module.continual.parts["clr"].norms.of("body.1", 1)
    assert not torch.equal(statistics["running_mean"], module.body[1].running_mean)


@pytest.mark.parametrize("skip", [True, False])
def test_at_first_it_is_the_network_itself(skip):
    plain = Deep().double().eval()
    net, part = attached(CLR(skip_pointwise=skip))
    net.continual.task = 2
    with torch.no_grad():
        assert torch.equal(net(IMAGES)[:, 4:], plain(IMAGES)[:, 4:])
    assert part.layers == (("body.0",) if skip else ("body.0", "body.3"))
    assert [kernels[0].numel() for kernels in part.kernels.values()] == [9 * 4] * len(part.layers)


def test_a_kernel_maps_its_channel_alone():
    net, part = attached(CLR())
    net.continual.task = 1
    maps = nn.functional.conv2d(IMAGES, net.body[0].weight, net.body[0].bias, padding=1)
    with torch.no_grad():
        part.kernels["body/0"][1, 2] = torch.tensor([[[0, 0, 0], [5, 0, 0], [0, 0, 0.0]]])  # the pixel on the left
        found = net.body[0](IMAGES)
    assert torch.equal(found[:, [0, 1, 3]], maps[:, [0, 1, 3]])
    assert_close(found[:, 2, :, 1:], 5 * maps[:, 2, :, :-1])
    assert not bool(found[:, 2, :, 0].any())


def test_the_regulariser_is_a_sum_of_lengths():
    net, part = attached(CLR(strength=0.3))
    part.finished.set(1)
    with torch.no_grad():
        net.body[1].bias.zero_()  # has no direction
    own = {name: p for name, p in net.named_parameters() if p.requires_grad}
    for parameter in own.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.SGD(own.values(), lr=1.0)
    part.edit_gradients(net, optimizer)
    kernels = next(name for name in own if "kernels" in name)
    terms = [own[kernels][1].norm(), net.body[1].weight.norm(), net.fc.weight[2:4].norm(), net.fc.bias[2:4].norm()]
    expected = torch.autograd.grad(0.3 * sum(terms), list(own.values()), allow_unused=True)
    for (name, parameter), gradient in zip(own.items(), expected, strict=True):
        assert_close(parameter.grad, 1 + (torch.zeros_like(parameter) if gradient is None else gradient), msg=name)


def test_a_module_without_convolutions_is_refused():
    class Flat(Mixed):
        def __init__(self):
            super().__init__()
            self.body = nn.Flatten()

    with pytest.raises(ValueError, match=r"Flat has 0 convolutions besides its head.*use a convolutional network"):
        CLR().attach_once(Flat(), make_stream().info)
