from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_cl.nn.token_maps import token_maps


def test_tokens_are_read_as_a_map() -> None:
    """A class token in front of 3 x 3 patches is left out; row after row."""
    tokens = torch.arange(20.0).view(1, 10, 2)
    maps = token_maps(tokens)
    assert maps.shape == (1, 2, 3, 3)
    assert maps[0, 0].tolist() == [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0], [14.0, 16.0, 18.0]]
    assert token_maps(maps) is maps


@pytest.mark.parametrize("shape", [(2, 9), (1, 34, 3)])
def test_what_is_no_map_is_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match=r"name other layers with `stages="):
        token_maps(torch.zeros(shape))
