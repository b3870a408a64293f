from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn import PrototypeBank, PrototypeHead


def test_the_worked_numbers_of_the_nearest_mean():
    head = PrototypeHead(3, 2)
    head.update(torch.tensor([[3.0, 4], [6, 8], [1, 0], [0, 1]]), torch.tensor([0, 0, 1, 1]))
    assert_close(head.means[:2], torch.tensor([[0.6, 0.8], [0.5, 0.5]]).double())
    angle = torch.deg2rad(torch.tensor(47.0))
    logits = head(torch.stack([angle.cos(), angle.sin()])[None])
    assert_close(logits[0, :2], torch.tensor([0.494282, 0.456676]), rtol=0, atol=1e-6)
    assert logits[0, 2] == -torch.inf
    cosine = PrototypeHead(3, 2, "cosine", normalize=True)
    cosine.load_state_dict(head.state_dict())
    expected = torch.tensor([0.994282, 0.999391])
    assert_close(cosine(torch.stack([angle.cos(), angle.sin()])[None])[0, :2], expected, rtol=0, atol=1e-6)


def test_cosines_of_two_features_in_one_vector():
    """The worked numbers of APER: halves of unit length would answer with the first class (1.707 and 1)."""
    head = PrototypeHead(2, 4, "cosine", normalize=False)
    head.update(torch.tensor([[1.0, 0, 5, 5], [0, 1, 0, 8]]), torch.tensor([0, 1]))
    logits = head(torch.tensor([[1.0, 0, 0, 10]]))
    assert_close(logits, torch.tensor([[0.710599, 0.987353]]), rtol=0, atol=1e-6)


def test_the_first_name_and_its_state():
    assert set(PrototypeBank(3, 2).state_dict()) == {"sums", "counts"}
    assert PrototypeBank is PrototypeHead
    with pytest.raises(ValueError, match="`distance` is 'dot'; give"):
        PrototypeHead(3, 2, "dot")


def test_forgotten_samples_do_not_count():
    head = PrototypeHead(3, 2)
    head.update(torch.tensor([[3.0, 4]]), torch.tensor([0]))
    head.reset()
    head.update(torch.tensor([[5.0, 0]]), torch.tensor([0]))
    assert head.means[0].tolist() == [1, 0]
    assert head.counts.tolist() == [1, 0, 0]
