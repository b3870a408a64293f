"""Refuse what a device cannot hold before a run begins."""

from __future__ import annotations

import os

import torch


def memory_of(device: torch.device) -> int | None:
    """All bytes of a GPU, or of this machine's main memory; ``None`` if that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def check_fits(needed: int, device: torch.device, what: str, advice: str) -> None:
    """Refuse ``needed`` bytes on a device that has less.

    Args:
        needed: Bytes.
        device: Where.
        what: What needs them, in words.
        advice: What to do, in words.

    Raises:
        ValueError: Names both numbers.
    """
    known = memory_of(device)
    if known is not None and needed > known:
        raise ValueError(f"{what} need {needed:,} bytes, but {device} has {known:,}; {advice}.")
