"""Ranges of arguments: stated beside a default, checked when a method is made, and kept by classes derived from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest

from lightning_cl.callbacks import ContinualMethod
from lightning_cl.callbacks.arguments import above, at_least, choice, converted, fraction

Kind = Literal["near", "far"]


@dataclass(eq=False)
class Ranged(ContinualMethod):
    state_key: ClassVar[str] = "Ranged"

    steps: int | None = at_least(1, default=None)
    lr: float = above(0, default=0.1)
    area: float = above(0, fraction(default=0.5))
    kind: Kind = choice(Kind, default="near")
    layers: Sequence[int] = converted(tuple, default=(0, 1))


@dataclass(eq=False)
class Derived(Ranged):
    steps: int | None = 3
    kind: ClassVar[str] = "far"  # type: ignore[misc]


def test_defaults_are_those_stated() -> None:
    assert Ranged().config() == {
        **ContinualMethod().config(),
        "steps": None,
        "lr": 0.1,
        "area": 0.5,
        "kind": "near",
        "layers": (0, 1),
    }
    assert Ranged(layers=[2]).layers == (2,)
    assert (Ranged.lr, Ranged(lr=1.0).lr, Derived().kind) == (0.1, 1.0, "far")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "`steps` is 0; give at least 1."),
        ({"lr": 0.0}, "`lr` is 0.0; give a number above 0."),
        ({"lr": float("nan")}, "`lr` is nan; give a number above 0."),
        ({"area": 1.5}, "`area` is 1.5; give a number in [0, 1]."),
        ({"area": 0.0}, "`area` is 0.0; give a number above 0."),
        ({"kind": "off"}, "`kind` is 'off'; give one of 'near', 'far'."),
    ],
)
def test_what_is_out_of_its_range_is_named(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match="give") as error:
        Ranged(**given)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_a_derived_class_with_another_default_keeps_the_range() -> None:
    with pytest.raises(ValueError, match="`steps` is 0; give at least 1"):
        Derived(steps=0)


def test_a_class_far_down_makes_each_check_once() -> None:
    converted_values: list[int] = []

    def note(value: int) -> int:
        converted_values.append(value)
        return value + 1

    @dataclass(eq=False)
    class Noting(ContinualMethod):
        state_key: ClassVar[str] = "Noting"

        number: int = converted(note, default=1)

    @dataclass(eq=False)
    class Further(Noting):
        """With the field of its base."""

    assert Further().number == 2
    assert converted_values == [1]
