"""What is remembered of tensors is made anew once they were written to, moved or exchanged, and not before."""

from __future__ import annotations

import copy

import torch
from torch import nn

from lightning_cl.nn.counter import Counter
from lightning_cl.nn.load_hooks import after_load
from lightning_cl.nn.parameter_versions import Remembered, written


class Mask(nn.Module):
    """Which classes are allowed, and their remembered ids."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("allowed", torch.tensor([True, False, True]))
        self.made, self.ids, self.loads = 0, Remembered[torch.Tensor](), 0
        after_load(self, "count")

    def count(self) -> None:
        self.loads += 1

    def classes(self) -> list[int]:
        def make() -> torch.Tensor:
            self.made += 1
            return self.allowed.nonzero().flatten()

        return self.ids.get(written(self.allowed), make).tolist()


def test_a_value_is_made_anew_after_a_write_alone() -> None:
    mask = Mask()
    assert (mask.classes(), mask.classes(), mask.made) == ([0, 2], [0, 2], 1)
    mask.allowed[1] = True
    assert (mask.classes(), mask.made) == ([0, 1, 2], 2)
    mask.load_state_dict({"allowed": torch.tensor([False, False, True])})
    assert (mask.classes(), mask.classes(), mask.made, mask.loads) == ([2], [2], 3, 1)
    mask.allowed = torch.tensor([False, True, False])  # another tensor
    assert mask.classes() == [1]
    before = written(mask.allowed)
    del mask.allowed
    mask.allowed = torch.tensor([True, False, False])  # where the other one was, perhaps
    assert written(mask.allowed) != before


def test_a_copy_remembers_nothing_and_has_hooks_of_its_own() -> None:
    mask = Mask()
    mask.allowed[1] = True
    mask.classes()
    twin = copy.deepcopy(mask)
    twin.allowed[0] = False
    assert (twin.classes(), mask.classes()) == ([1, 2], [0, 1, 2])
    assert copy.deepcopy(mask.ids).get(written(mask.allowed), lambda: torch.zeros(0)).tolist() == []
    twin.load_state_dict(mask.state_dict())
    assert (twin.loads, mask.loads) == (1, 0)


def test_a_counter_takes_the_number_of_a_checkpoint() -> None:
    counter, saved = Counter(), Counter(7).state_dict()
    counter.load_state_dict(saved)
    assert counter.value == 7
