from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torchvision.ops import sigmoid_focal_loss

from lightning_cl.nn import ClassMask
from lightning_cl.nn.masks import with_infinite


def masked_head():
    head, mask = nn.Linear(6, 8).double(), ClassMask(8)
    head.register_forward_hook(lambda layer, args, logits: mask(logits))
    return head, mask


@pytest.mark.parametrize("classes", [(2, 3, 5), (7,), range(8)])
def test_masked_cross_entropy_is_that_of_the_slice_in_value_and_gradient(classes):
    head, mask = masked_head()
    mask.allow(classes, None)
    plain, x = copy.deepcopy(head), torch.randn(12, 6, dtype=torch.float64)
    plain._forward_hooks.clear()
    columns, position = torch.tensor(classes), torch.randint(len(classes), (12,))

    loss = F.cross_entropy(head(x), columns[position])
    expected = F.cross_entropy(plain(x)[:, columns], position)
    loss.backward()
    expected.backward()

    assert_close(loss, expected, rtol=0, atol=1e-12)
    assert_close(head.weight.grad, plain.weight.grad, rtol=0, atol=1e-12)
    assert_close(head.bias.grad, plain.bias.grad, rtol=0, atol=1e-12)
    others = torch.ones(8, dtype=torch.bool)
    others[columns] = False
    assert not head.weight.grad[others].any()


def test_training_and_evaluation_have_their_own_classes():
    head, mask = masked_head()
    mask.allow([1], [0, 1])
    assert (head(torch.ones(6).double()) > -500).nonzero().flatten().tolist() == [1]
    mask.eval()
    assert (head(torch.ones(6).double()) > -500).nonzero().flatten().tolist() == [0, 1]
    mask.allow(None, None)
    assert (head(torch.ones(6).double()) > -500).all()


def test_all_classes_are_allowed_at_first():
    head, _ = masked_head()
    assert (head(torch.ones(3, 6).double()) > -500).all()


def test_what_is_allowed_is_saved():
    mask, other = ClassMask(4), ClassMask(4)
    mask.allow([1, 2], [0, 1, 2])
    other.load_state_dict(mask.state_dict())
    assert other.train_allowed.tolist() == [False, True, True, False]
    assert other.eval_allowed.tolist() == [True, True, True, False]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_masked_logit_is_finite_and_its_probability_exactly_zero(dtype):
    mask = ClassMask(5)
    mask.allow([0, 2], None)
    logits = torch.tensor([[300.0, 1.0, -20.0, 2.0, torch.nan], [1.0, torch.inf, 2.0, -torch.inf, 3.0]], dtype=dtype)
    masked = mask(logits)
    assert torch.equal(masked[:, [0, 2]], logits[:, [0, 2]])
    assert bool(masked.isfinite().all())
    assert bool((masked.softmax(1)[:, [1, 3, 4]] == 0).all())


def test_an_allowed_class_without_samples_counts_as_masked():
    mask = ClassMask(3)
    assert mask(torch.tensor([[4.0, -torch.inf, 5.0]])).tolist() == [[4.0, -1000.0, 5.0]]


LOSSES = {
    "label smoothing": lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
    "mixed labels": lambda z, y: F.cross_entropy(z, 0.7 * one_hot(z, y) + 0.3 * one_hot(z, y.flip(0))),
    "binary cross-entropy": lambda z, y: F.binary_cross_entropy_with_logits(z, one_hot(z, y)),
    "mean squared error": lambda z, y: F.mse_loss(z, one_hot(z, y)),
    "squared error of probabilities": lambda z, y: F.mse_loss(z.softmax(1), one_hot(z, y)),
    "hinge": lambda z, y: F.multi_margin_loss(z, y),
    "multi-label margin": lambda z, y: F.multilabel_soft_margin_loss(z, one_hot(z, y)),
    "negative log-likelihood": lambda z, y: F.nll_loss(z.log_softmax(1), y),
    "focal": lambda z, y: ((1 - F.cross_entropy(z, y, reduction="none").neg().exp()) ** 2).mean(),
    "one-hot focal": lambda z, y: (-one_hot(z, y) * (1 - z.softmax(1)) ** 2 * z.log_softmax(1)).sum(1).mean(),
    "sigmoid focal": lambda z, y: sigmoid_focal_loss(z, one_hot(z, y), reduction="mean"),
    "divergence": lambda z, y: F.kl_div(z.log_softmax(1), 0.9 * one_hot(z, y) + 0.1 / z.shape[1]),
    "entropy": lambda z, y: F.cross_entropy(z, y) - 0.1 * (z.softmax(1) * z.log_softmax(1)).sum(1).mean(),
    "log of probabilities": lambda z, y: -(z.softmax(1) + 1e-8).log().gather(1, y[:, None]).mean(),
    "penalty on logits": lambda z, y: F.cross_entropy(z, y) + 1e-3 * z.square().mean(),
    "z-loss": lambda z, y: F.cross_entropy(z, y) + 1e-3 * z.logsumexp(1).square().mean(),
    "temperature": lambda z, y: F.cross_entropy(z / TEMPERATURE, y),
    "dropout behind the head": lambda z, y: F.cross_entropy(F.dropout(z, 0.2), y),
    "weighted": lambda z, y: F.cross_entropy(z, y, weight=torch.arange(1.0, z.shape[1] + 1, dtype=z.dtype)),
    "logit adjustment": lambda z, y: F.cross_entropy(z + torch.linspace(-2, 2, z.shape[1], dtype=z.dtype), y),
}
TEMPERATURE = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)


def one_hot(z, y):
    return F.one_hot(y, z.shape[1]).to(z.dtype)


@pytest.mark.parametrize("training", [True, False], ids=["train", "evaluate"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_usual_losses_stay_finite_under_a_mask(name, training):
    head, mask = masked_head()
    mask.allow([2, 5], [2, 5, 6])
    mask.train(training)
    torch.manual_seed(0)
    loss = LOSSES[name](head(torch.randn(12, 6, dtype=torch.float64)), torch.tensor([2, 5]).repeat(6))
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(head.weight.grad.isfinite().all())
    others = [c for c in range(8) if c not in (2, 5, 6)]
    assert not head.weight.grad[others].any()


def test_what_was_infinite_before_the_mask_is_so_again():
    """Also a class that may be predicted, but of which a method has no sample yet."""
    given = torch.tensor([[2.0, -torch.inf, 0.5, 7.0], [-3.0, 4.0, -torch.inf, -8.0]])
    mask = ClassMask(4).eval()
    mask.allow([0, 1, 2], [0, 1, 2])
    expected = given.clone()
    expected[:, 3] = -torch.inf
    assert torch.equal(with_infinite(mask(given), mask.eval_allowed), expected)
