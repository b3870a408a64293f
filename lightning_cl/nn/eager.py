"""Tell apart what ``torch.compile`` and ``torch.export`` do, and run networks as they were before."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch


def uncompiled() -> AbstractContextManager[Any]:
    """Networks inside run as they were before ``torch.compile``.

    A compiled network cannot be traced below ``vmap``, and takes no notice of hooks that its layers got later.
    """
    stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6
    return nullcontext() if stance is None else cast("AbstractContextManager[Any]", stance("force_eager"))


def exporting() -> bool:
    """Say whether a graph of the pass is being made, in which nothing can be left out."""
    asked = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # older torch has but one of them
    return bool(asked())
