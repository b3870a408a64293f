"""How long a model needs to recover from a change of the data."""

from __future__ import annotations

from lightning_cl.metrics.functional._matrix import RowLike, to_float64


def recovery_time(errors: RowLike, change: int, window: int = 10, slack: float = 1.1) -> int | None:
    """Steps from a change until the error is below ``slack`` times its level before; ``None``: not within the series.

    The level is the mean of the last ``window`` errors before the change.

    Args:
        errors: ``(T,)`` errors, lower is better, at least 0.
        change: The first step of the new data, from 1 to ``T - 1``.
        window: At least 1; of a change that is nearer to the start than this, all steps before it count.
        slack: Above 0.

    Raises:
        ValueError: If the change is not within the series, or ``window`` is below 1.
    """
    values = to_float64(errors)
    if not 1 <= change < len(values) or window < 1:
        raise ValueError(
            f"`change` is {change} and `window` {window}; give a step from 1 to {len(values) - 1} and a window of at "
            "least 1."
        )
    level = values[max(change - window, 0) : change].mean()
    below = (values[change:] < slack * level).nonzero().flatten()
    return int(below[0]) if len(below) else None
