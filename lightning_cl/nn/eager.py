"""Run networks as they were before ``torch.compile``."""

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
