"""The last part of a network: its last stage, the last trained part beside the head, or what the user names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from lightning_cl.training.last_stage import last_part, last_stage


class Staged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2, self.fc = nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5)
        self.continual: Any = SimpleNamespace(head_path="fc")


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.neck, self.fc = nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5)
        self.continual: Any = SimpleNamespace(head_path="fc")


def test_the_last_stage_or_the_one_that_is_named() -> None:
    assert last_part(Staged(), None, "M remembers", "the part") == last_stage(Staged(), None) == "layer2"
    assert last_part(Staged(), "layer1", "M remembers", "the part") == last_stage(Staged(), "layer1") == "layer1"


@pytest.mark.parametrize("find", [last_stage, lambda module, path: last_part(module, path, "M remembers", "the part")])
def test_a_name_of_nothing_is_refused(find: Any) -> None:
    with pytest.raises(ValueError, match=r"`stage=.layer3.` is not a part of the module; did you mean layer"):
        find(Staged(), "layer3")


def test_without_stages_the_last_trained_part_beside_the_head() -> None:
    assert last_part(Plain(), None, "M remembers", "the part") == "neck"
    only = Plain()
    only.neck.requires_grad_(False)
    with pytest.raises(ValueError, match=r"M remembers, but no stages were found in this Plain; name the part with"):
        last_part(only, None, "M remembers", "the part")
    with pytest.raises(ValueError, match=r"no stages were found in this Plain .*are projected with `stage=`"):
        last_stage(only, None)
