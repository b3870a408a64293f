"""Methods keep as many copies of the weights as their pages say, as buffers that no optimiser knows, and once each."""

from __future__ import annotations

import re
from typing import Any

import pytest
from conformance.methods import METHODS, make
from conformance.modules import PLAIN
from conformance.runs import attached

from lightning_cl.nn.weights import trained

pytestmark = pytest.mark.filterwarnings("ignore")
NUMBERS = {"a": 1, "one": 1, "two": 2, "three": 3, "eight": 8}
SAID = re.compile(rf"({'|'.join(NUMBERS)}) cop(?:y|ies) of (?:the trained weights|the weights|what is trained)")
FEW = 2000  # the head, which some do not copy, and what is beside the copies; far less than a copy


def said(method: Any) -> int:
    """How many copies a method's page promises at most; 0: nothing of the kind."""
    return sum(NUMBERS[count] for count in SAID.findall(" ".join((method.__doc__ or "").split())))


KEEPING = [method for method in METHODS if said(method) and method.family == "vit"]


def test_the_pages_are_read() -> None:
    found = {method.__name__: said(method) for method in KEEPING}
    assert found.items() >= {"L2SP": 1, "EWC": 2, "SynapticIntelligence": 3, "LwF": 1, "CoTTA": 2, "RWalk": 8}.items()


@pytest.mark.parametrize("method", KEEPING, ids=lambda m: m.__name__)
def test_copies_are_those_of_the_page(method: Any) -> None:
    module: Any = attached(PLAIN, make(method))
    (part,) = module.continual.parts.values()
    own = {name: value for name, value in trained(module).items() if not name.startswith("continual.")}
    kept = [*part.buffers(), *part.parameters()]
    size = sum(value.numel() for value in own.values())
    assert abs(sum(value.numel() for value in kept) - said(method) * size) < FEW < size / 10
    assert not {p.data_ptr() for p in own.values()} & {value.data_ptr() for value in kept if value.numel()}
    saved = [value for name, value in module.state_dict().items() if name.startswith("continual.parts.")]
    assert sum(value.numel() for value in saved) == sum(value.numel() for value in kept)


@pytest.mark.parametrize("method", [m for m in KEEPING if m.__name__ != "CoTTA"], ids=lambda m: m.__name__)
def test_no_optimiser_moves_them(method: Any) -> None:
    """In CoTTA the copy is the student, which learns, and the module itself is the teacher."""
    (part,) = attached(PLAIN, make(method)).continual.parts.values()  # type: ignore[operator, union-attr]
    assert not any(parameter.requires_grad for parameter in part.parameters())
