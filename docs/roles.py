"""Turns Sphinx roles in docstrings into the Markdown that the pages of the reference are written in."""

from __future__ import annotations

from typing import Any

import griffe

from lightning_cl.cli.catalogue import without_roles


class Roles(griffe.Extension):
    """Called for every object that is read."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rewrite its docstring."""
        if obj.docstring is not None:
            obj.docstring.value = without_roles(obj.docstring.value)
