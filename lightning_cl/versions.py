"""Every saved state carries a version; one that a newer lightning_cl wrote is refused before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning_cl


def check_version(state: Mapping[str, Any], newest: int, what: str) -> None:
    """Refuse a state of a newer version; one without a version is of the first.

    Args:
        state: A saved state.
        newest: The newest version that is understood here.
        what: Whose state it is, for the message.

    Raises:
        ValueError: If the state is newer; the message shows both versions.
    """
    version = int(state.get("version", 1))
    if version > newest:
        raise ValueError(
            f"the state of {what} is of version {version}, but lightning_cl {lightning_cl.__version__} knows versions "
            f"up to {newest}; the checkpoint was written by a newer lightning_cl, so install that (`pip install -U "
            "lightning-cl`)."
        )


def check_callback_versions(callbacks: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse a checkpoint in which the state of a callback of this package is of a newer version.

    Args:
        callbacks: ``checkpoint["callbacks"]``.
        known: The callbacks that will take these states, by state key; asked for their version only when a state is
            not of the first, since some have to collect their state from all processes.
    """
    for key, state in callbacks.items():
        if not key.startswith("lightning_cl.") or key not in known or not isinstance(state, Mapping):
            continue
        if int(state.get("version", 1)) > 1:
            check_version(state, int(known[key].state_dict().get("version", 1)), key.removeprefix("lightning_cl."))
