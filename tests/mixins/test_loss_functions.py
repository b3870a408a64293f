"""The losses that people write in their steps, under every class mask, against the formulas on the allowed columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from callbacks.by_hand import CLASSES, Net, run, start, weights
from tiny import stream_info, task_of
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision.ops import sigmoid_focal_loss

from lightning_cl.callbacks import FineTuning

pytestmark = pytest.mark.filterwarnings("ignore")
#: Columns that compete while task 1 of 3 is trained, and by which kind of mask.
COLUMNS = {"batch": [1, 3], "task": [2, 3], "seen": [0, 1, 2, 3], "all": list(range(CLASSES))}
EPSILON, GAMMA, MIXED, SCALE, MARGIN = 0.1, 2.0, 0.3, 8.0, 0.3


class Loss(NamedTuple):
    """A loss and what it is on the columns that compete.

    Attributes:
        given: Of ``(B, C)`` masked logits and ``(B,)`` classes, as a user writes it.
        formula: Of the ``(B, K)`` logits that compete, the ``(B,)`` places of the classes among them, the ``(K,)``
            classes, and ``C``.
    """

    given: Callable[[Tensor, Tensor], Tensor]
    formula: Callable[[Tensor, Tensor, Tensor, int], Tensor]


def one_hot(z: Tensor, y: Tensor) -> Tensor:
    return F.one_hot(y, z.shape[1]).to(z.dtype)


def log_softmax(z: Tensor) -> Tensor:
    return z - z.exp().sum(1, keepdim=True).log()


def of_class(values: Tensor, y: Tensor) -> Tensor:
    return values[torch.arange(len(y)), y]


def entropy(z: Tensor, y: Tensor) -> Tensor:
    return -of_class(log_softmax(z), y).mean()


def smoothed(z: Tensor, y: Tensor) -> Tensor:
    logs = log_softmax(z)
    return (-(1 - EPSILON) * of_class(logs, y) - EPSILON * logs.mean(1)).mean()


def balance(classes: Tensor) -> Tensor:
    """Weights of classes by their number of samples (class-balanced loss, arXiv:1901.05555)."""
    counts = 3.0 + 4.0 * classes.double()
    return (1 - 0.9) / (1 - 0.9**counts)


def balanced(z: Tensor, y: Tensor, classes: Tensor) -> Tensor:
    weight = balance(classes)[y]
    return -(weight * of_class(log_softmax(z), y)).sum() / weight.sum()


def divergence(z: Tensor, y: Tensor) -> Tensor:
    target = (1 - EPSILON) * one_hot(z, y) + EPSILON / z.shape[1]
    return F.kl_div(z.log_softmax(1), target, reduction="batchmean")


def focal_weighted(losses: Tensor) -> Tensor:
    return ((1 - (-losses).exp()) ** GAMMA * losses).mean()


def focal(z: Tensor, y: Tensor) -> Tensor:
    log = of_class(log_softmax(z), y)
    return -((1 - log.exp()) ** GAMMA * log).mean()


def binary(z: Tensor, y: Tensor, outputs: int) -> Tensor:
    """Mean over all columns, of which the masked ones are right for sure."""
    truth = one_hot(z, y)
    return ((1 + z.exp()).log() - truth * z).sum() / (len(y) * outputs)


def binary_focal(z: Tensor, y: Tensor, outputs: int) -> Tensor:
    right = torch.where(one_hot(z, y) == 1, z, -z).sigmoid()
    share = torch.where(one_hot(z, y) == 1, 0.25, 0.75)
    return -(share * (1 - right) ** 2 * right.log()).sum() / (len(y) * outputs)


def mixed(z: Tensor, y: Tensor) -> Tensor:
    return MIXED * entropy(z, y) + (1 - MIXED) * entropy(z, y.flip(0))


def soft(z: Tensor, y: Tensor) -> Tensor:
    target = MIXED * one_hot(z, y) + (1 - MIXED) * one_hot(z, y.flip(0))
    return F.cross_entropy(z, target)


def arc(z: Tensor, y: Tensor) -> Tensor:
    """ArcFace (arXiv:1801.07698) in the step, on cosines."""
    angle = z.clamp(-1 + 1e-7, 1 - 1e-7).acos()
    return F.cross_entropy(SCALE * (angle + MARGIN * one_hot(z, y)).cos(), y)


def arc_formula(z: Tensor, y: Tensor, outputs: int) -> Tensor:
    """Columns that do not compete have the cosine -1, the lowest that there is."""
    own = of_class(z, y)
    own = own * math.cos(MARGIN) - (1 - own**2).sqrt() * math.sin(MARGIN)
    others = (SCALE * z).exp().sum(1) - (SCALE * of_class(z, y)).exp() + (outputs - z.shape[1]) * math.exp(-SCALE)
    return ((SCALE * own).exp().div((SCALE * own).exp() + others)).log().neg().mean()


def probability(z: Tensor, y: Tensor) -> Tensor:
    return of_class(log_softmax(z), y).exp()


def uncertainty(z: Tensor) -> Tensor:
    return -(log_softmax(z).exp() * log_softmax(z)).sum(1).mean()


def prior(classes: Tensor) -> Tensor:
    """Logarithms of the shares of classes in the data, for logit adjustment (arXiv:2007.07314)."""
    return (1 + classes.double()).log()


def reverse(p: Tensor, y: Tensor) -> Tensor:
    """The other half of the symmetric cross-entropy (arXiv:1908.06112)."""
    return -(p * F.one_hot(y, p.shape[1]).to(p.dtype).clamp(1e-4, 1).log()).sum(1).mean()


LOSSES = {
    "cross-entropy": Loss(F.cross_entropy, lambda z, y, k, n: entropy(z, y)),
    "label smoothing": Loss(
        lambda z, y: F.cross_entropy(z, y, label_smoothing=EPSILON), lambda z, y, k, n: smoothed(z, y)
    ),
    "divergence from smooth labels": Loss(divergence, lambda z, y, k, n: smoothed(z, y)),
    "class-balanced": Loss(
        lambda z, y: F.cross_entropy(z, y, weight=balance(torch.arange(CLASSES))), lambda z, y, k, n: balanced(z, y, k)
    ),
    "focal": Loss(lambda z, y: focal_weighted(F.cross_entropy(z, y, reduction="none")), lambda z, y, k, n: focal(z, y)),
    "mixup": Loss(
        lambda z, y: MIXED * F.cross_entropy(z, y) + (1 - MIXED) * F.cross_entropy(z, y.flip(0)),
        lambda z, y, k, n: mixed(z, y),
    ),
    "cutmix with soft labels": Loss(soft, lambda z, y, k, n: mixed(z, y)),
    "binary cross-entropy": Loss(
        lambda z, y: F.binary_cross_entropy_with_logits(z, one_hot(z, y)), lambda z, y, k, n: binary(z, y, n)
    ),
    "sigmoid focal": Loss(
        lambda z, y: sigmoid_focal_loss(z, one_hot(z, y), reduction="mean"), lambda z, y, k, n: binary_focal(z, y, n)
    ),
    "squared error": Loss(
        lambda z, y: F.mse_loss(z, one_hot(z, y)), lambda z, y, k, n: (z - one_hot(z, y)).square().sum() / (len(y) * n)
    ),
    "penalty on logits": Loss(
        lambda z, y: F.cross_entropy(z, y) + 0.01 * z.square().mean(),
        lambda z, y, k, n: entropy(z, y) + 0.01 * z.square().sum() / (len(y) * n),
    ),
    "arc margin in the step": Loss(arc, lambda z, y, k, n: arc_formula(z, y, n)),
    "one-hot cross-entropy": Loss(
        lambda z, y: -(one_hot(z, y) * z.log_softmax(1)).sum(1).mean(), lambda z, y, k, n: entropy(z, y)
    ),
    "one-hot focal": Loss(
        lambda z, y: -(one_hot(z, y) * (1 - z.softmax(1)) ** GAMMA * z.log_softmax(1)).sum(1).mean(),
        lambda z, y, k, n: focal(z, y),
    ),
    "low entropy": Loss(
        lambda z, y: F.cross_entropy(z, y) - 0.1 * (z.softmax(1) * z.log_softmax(1)).sum(1).mean(),
        lambda z, y, k, n: entropy(z, y) + 0.1 * uncertainty(z),
    ),
    "high entropy": Loss(
        lambda z, y: F.cross_entropy(z, y) - 0.1 * torch.distributions.Categorical(logits=z).entropy().mean(),
        lambda z, y, k, n: entropy(z, y) - 0.1 * uncertainty(z),
    ),
    "learned temperature": Loss(lambda z, y: F.cross_entropy(2.5 * z, y), lambda z, y, k, n: entropy(2.5 * z, y)),
    "logit adjustment": Loss(
        lambda z, y: F.cross_entropy(z + prior(torch.arange(CLASSES)), y), lambda z, y, k, n: entropy(z + prior(k), y)
    ),
    "Brier score": Loss(
        lambda z, y: (z.softmax(1) - one_hot(z, y)).square().sum(1).mean(),
        lambda z, y, k, n: (log_softmax(z).exp() - one_hot(z, y)).square().sum(1).mean(),
    ),
    "hinge": Loss(
        F.multi_margin_loss,
        lambda z, y, k, n: ((1 - of_class(z, y)[:, None] + z).clamp_min(0).sum(1) - 1).mean() / n,
    ),
    "generalised cross-entropy": Loss(
        lambda z, y: ((1 - of_class(z.softmax(1), y) ** 0.7) / 0.7).mean(),
        lambda z, y, k, n: ((1 - probability(z, y) ** 0.7) / 0.7).mean(),
    ),
    "symmetric cross-entropy": Loss(
        lambda z, y: F.cross_entropy(z, y) + 0.5 * reverse(z.softmax(1), y),
        lambda z, y, k, n: entropy(z, y) + 0.5 * reverse(log_softmax(z).exp(), y),
    ),
}


class Cosines(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x) @ F.normalize(self.weight).T


def module_in_task_1(mask: Any, layer: Any = None) -> Net:
    """Task 1 of three begins; the batch to come has classes 1 and 3."""
    net, info = Net().double(), stream_info(3, CLASSES)
    net.load_state_dict(start())
    if layer is not None:
        net.fc = layer(9, CLASSES, bias=False, dtype=torch.float64)
    FineTuning(train_mask=mask).attach_once(net, info)
    net.on_task_start(task_of(info, 1))
    if mask == "batch":  # as the task loop does before each step
        net.continual.mask.allow_train(COLUMNS["batch"])
    return net.train()


@pytest.mark.parametrize("mask", COLUMNS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_trains_the_allowed_columns_by_its_formula(name: str, mask: str) -> None:
    torch.manual_seed(0)
    net, columns = module_in_task_1(mask, Cosines if "arc" in name else None), torch.tensor(COLUMNS[mask])
    x, places = torch.randn(12, 1, 4, 4, dtype=torch.float64), torch.randint(len(columns), (12,))
    features = net.body(x).detach().requires_grad_()
    loss = LOSSES[name].given(net.fc(features), columns[places])
    assert bool(loss.isfinite())
    found = torch.autograd.grad(loss, [features, net.fc.weight])
    net.fc._forward_hooks.clear()
    formula = LOSSES[name].formula(net.fc(features)[:, columns], places, columns, CLASSES)
    expected = torch.autograd.grad(formula, [features, net.fc.weight])
    for gradient, known in zip(found, expected, strict=True):
        assert_close(gradient, known, rtol=1e-6, atol=1e-9)
    assert not found[1][[c for c in range(CLASSES) if c not in COLUMNS[mask]]].any()


@pytest.mark.parametrize("mask", COLUMNS)
def test_dropout_behind_the_head_is_finite(mask: str) -> None:
    """Where it drops a masked column this competes for a sample, but its row gets no gradient."""
    torch.manual_seed(0)
    net, columns = module_in_task_1(mask), torch.tensor(COLUMNS[mask])
    features = net.body(torch.randn(12, 1, 4, 4, dtype=torch.float64)).detach()
    loss = F.cross_entropy(F.dropout(net.fc(features), 0.5), columns[torch.randint(len(columns), (12,))])
    (found,) = torch.autograd.grad(loss, [net.fc.weight])
    assert bool(loss.isfinite() & found.isfinite().all())
    assert not found[[c for c in range(CLASSES) if c not in COLUMNS[mask]]].any()


@pytest.mark.parametrize("mask", COLUMNS)
def test_smoothing_in_a_run_leaves_the_level_of_the_logits(mask: Any) -> None:
    """Else the classes of the current task would sink below all others, whatever they are."""

    class Smoothing(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self(batch[0]), batch[1], label_smoothing=EPSILON)

    net = Smoothing()
    net.load_state_dict(start())
    run(FineTuning(train_mask=mask), net=net)
    assert_close(net.fc.bias.sum(), start()["fc.bias"].sum(), rtol=0, atol=1e-9)
    assert all(bool(value.isfinite().all()) for value in weights(net).values())


class Margins(nn.Linear):
    """An ArcFace layer that is given the classes while it learns."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        z = F.normalize(x) @ F.normalize(self.weight).T
        return SCALE * (z if y is None else (z.clamp(-1 + 1e-7, 1 - 1e-7).acos() + MARGIN * one_hot(z, y)).cos())


@pytest.mark.parametrize("mask", COLUMNS)
def test_a_layer_that_adds_margins_is_masked_behind_them(mask: str) -> None:
    torch.manual_seed(0)
    net, columns = module_in_task_1(mask, Margins), torch.tensor(COLUMNS[mask])
    features, places = torch.randn(12, 9, dtype=torch.float64), torch.randint(len(columns), (12,))
    loss = F.cross_entropy(net.fc(features, columns[places]), columns[places])
    (found,) = torch.autograd.grad(loss, net.fc.weight)
    angles = (F.normalize(features) @ F.normalize(net.fc.weight[columns]).T).acos()
    expected = entropy(SCALE * (angles + MARGIN * one_hot(angles, places)).cos(), places)
    assert_close(loss, expected)
    assert_close(found, torch.autograd.grad(expected, net.fc.weight)[0])
    answers = net.eval().fc(features)
    assert_close(answers[:, columns[:4]], SCALE * angles.cos()[:, :4])
    assert set(answers.argmax(1).tolist()) <= set(COLUMNS["seen"])
