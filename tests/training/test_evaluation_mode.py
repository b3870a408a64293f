from __future__ import annotations

import torch
from conformance.streams import make_stream

from lightning_cl.training.evaluation_mode import in_default_precision


def test_a_pass_within_a_step_of_double_precision_draws_the_loaders_augmentation():
    stream = make_stream()
    stream.setup()
    expected = list(stream.train_loader_for(0, "train", 0))
    torch.set_default_dtype(torch.float64)
    try:
        found = list(in_default_precision(stream.train_loader_for(0, "train", 0)))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(found) == len(expected) > 0
    for (images, labels), (same, told) in zip(found, expected, strict=True):
        assert torch.equal(images, same)
        assert torch.equal(labels, told)
