"""Which kinds of head a method works on."""

from __future__ import annotations

from typing import Any

from lightning_cl.nn.head_layer import is_linear


def check_linear(module: Any, who: str, why: str, advice: str) -> None:
    """Check that the head is a plain linear layer.

    Args:
        module: With a head.
        who: The method.
        why: What it does, as a sentence goes on.
        advice: What to do instead, as an imperative.

    Raises:
        ValueError: If it is a cosine layer, say, or is wrapped or parametrised.
    """
    head = module.continual_head
    if not is_linear(head):
        raise ValueError(
            f"{who} {why}, so the head must be a plain `torch.nn.Linear` or a convolution of one pixel, but "
            f"`{module.continual.head_path}` is a {type(head).__name__} whose answers are made otherwise; {advice}."
        )


def check_own_rows(module: Any, who: str) -> None:
    """Check that the head's rows are its own, and not changed by layers around it.

    Raises:
        ValueError: If it is wrapped, as by PEFT.
    """
    head = module.continual_head
    if hasattr(head, "base_layer"):
        raise ValueError(
            f"{who} compares features with the rows of the head, but `{module.continual.head_path}` is a "
            f"{type(head).__name__} around a layer, which changes its answers; leave the head out of the wrapping, or "
            "use another method."
        )
