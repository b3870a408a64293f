"""The guidance terms against their formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_cl.nn.lgcl import TextGuide, guidance, other_classes


def rows(count: int, width: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_against_a_loop():
    keys, near, far = rows(4), rows(1, seed=1)[0], rows(1, seed=2)[0]
    expected = [1 - F.cosine_similarity(k, near, dim=0) + F.cosine_similarity(k, far, dim=0) for k in keys]
    assert_close(guidance(keys, near, far), torch.stack(expected).mean())
    assert_close(guidance(keys, near), torch.stack([1 - F.cosine_similarity(k, near, dim=0) for k in keys]).mean())


def test_the_range():
    near = rows(1)[0]
    assert float(guidance(near[None], near, -near)) == pytest.approx(-1, abs=1e-6)
    assert float(guidance(-near[None], near, -near)) == pytest.approx(3, abs=1e-6)
    assert float(guidance(-near[None], near)) == pytest.approx(2, abs=1e-6)


def test_the_other_class_is_of_the_task_and_never_the_own_one():
    classes = torch.tensor([7, 2, 5])
    drawn = set()
    for seed in range(30):
        labels = torch.tensor([2, 5, 7, 2, 9])
        other = other_classes(labels, classes, torch.Generator().manual_seed(seed))
        assert (other != labels).all()
        assert set(other.tolist()) <= {2, 5, 7}
        assert other[0] == other[3]  # of a class, so it does not depend on the share of a process
        drawn.add(int(other[0]))
    assert drawn == {5, 7}
    assert other_classes(torch.tensor([1]), torch.tensor([1]), torch.Generator()) is None


@pytest.mark.parametrize("dim", [6, 4, 9])
def test_texts_in_the_feature_space(dim):
    guide = TextGuide(5, 2, 6, dim)
    guide.add_classes(torch.tensor([3, 1]), rows(2, dim))
    guide.add_task(1, rows(1, dim, seed=4)[0])
    assert guide.known.tolist() == [False, True, False, True, False]
    assert_close(guide.classes[[3, 1]].norm(dim=1), torch.ones(2))
    assert_close(guide.tasks.norm(dim=1), torch.tensor([0.0, 1.0]))
    if dim <= 6:  # an isometry
        cosine = F.cosine_similarity(*rows(2, dim), dim=0)
        assert_close(guide.classes[3] @ guide.classes[1], cosine)
    assert not list(guide.parameters())
