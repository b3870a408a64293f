"""What a run drew and read from its memory."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_cl.mixins.replay import ReplayMixin


def recorded(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """What a function of the mixin gave, in order, where it gave something."""
    found: list[Any] = []
    whole = getattr(ReplayMixin, name)

    def record(self: Any, *args: Any) -> Any:
        drawn = whole(self, *args)
        if drawn is not None:
            found.append(drawn)
        return drawn

    monkeypatch.setattr(ReplayMixin, name, record)
    return found


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the memory gave in each step, in order."""
    return recorded(monkeypatch, "draw")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was read from chosen slots of the memory, in order."""
    return recorded(monkeypatch, "read")
