from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import ClassMask


def masked_head():
    head, mask = nn.Linear(6, 8).double(), ClassMask(8)
    head.register_forward_hook(mask.hook)
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
    assert torch.isfinite(head(torch.ones(6).double())).nonzero().flatten().tolist() == [1]
    mask.eval()
    assert torch.isfinite(head(torch.ones(6).double())).nonzero().flatten().tolist() == [0, 1]
    mask.allow(None, None)
    assert torch.isfinite(head(torch.ones(6).double())).all()


def test_all_classes_are_allowed_at_first():
    head, _ = masked_head()
    assert torch.isfinite(head(torch.ones(3, 6).double())).all()


def test_what_is_allowed_is_saved():
    mask, other = ClassMask(4), ClassMask(4)
    mask.allow([1, 2], [0, 1, 2])
    other.load_state_dict(mask.state_dict())
    assert other.train_allowed.tolist() == [False, True, True, False]
    assert other.eval_allowed.tolist() == [True, True, True, False]


def test_a_copied_head_asks_the_copied_mask():
    both = nn.ModuleList(masked_head())
    head, mask = copy.deepcopy(both)
    mask.allow([0], None)
    assert torch.isfinite(head(torch.ones(6).double())).sum() == 1
    assert torch.isfinite(both[0](torch.ones(6).double())).all()
