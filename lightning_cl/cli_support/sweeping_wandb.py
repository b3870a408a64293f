"""A sweep as the file that ``wandb sweep`` reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl.cli_support.configs import UsageError
from lightning_cl.cli_support.sweeping_space import Choice, Parameter, Range, is_grid, log_integers

METHODS = ("grid", "random", "bayes")
HEADER = """\
# {what}
# wandb sweep {file}   # prints the command of the agents, which start the runs
# Each run sees the tuning stream only: {tuning}.
# Afterwards run the best values once per seed on the evaluation stream, and report only that:
#   {final}
"""


def sweep_config(
    words: Sequence[str], parameters: Sequence[Parameter], metric: str, goal: str, method: str | None = None
) -> dict[str, Any]:
    """The content of a sweep file.

    Args:
        words: What follows ``lightning-cl``, without the parameters.
        parameters: The space.
        metric: As it is logged.
        goal: ``"maximize"`` or ``"minimize"``.
        method: One of :data:`METHODS`; ``None``: ``"grid"`` if all parameters have a list of values, else ``"bayes"``.

    Raises:
        UsageError: For a grid over a range.
    """
    chosen = method or ("grid" if is_grid(parameters) else "bayes")
    ranges = [parameter.path for parameter in parameters if isinstance(parameter.domain, Range)]
    if chosen == "grid" and ranges:
        raise UsageError(
            f"a grid needs lists of values, but {', '.join(ranges)} is a range; list values (`a,b,c`), or use "
            "`--method random` or `--method bayes`."
        )
    return {
        "program": "lightning-cl",
        "command": ["${env}", "${program}", *words, "${args}"],
        "method": chosen,
        "metric": {"name": metric, "goal": goal},
        "parameters": {parameter.path: _entry(parameter.domain) for parameter in parameters},
    }


def _entry(domain: Choice | Range) -> dict[str, Any]:
    if isinstance(domain, Choice):
        return {"values": [_word(value) for value in domain.values]}
    if domain.integer and domain.log:  # W&B rounds logarithmic samples to floats, which no integer argument takes
        return {"values": log_integers(int(domain.low), int(domain.high))}
    kind = "int_uniform" if domain.integer else "log_uniform_values" if domain.log else "uniform"
    return {"distribution": kind, "min": domain.low, "max": domain.high}


def _word(value: Any) -> Any:
    """What the agent's ``str`` turns into a word that means the value; ``None`` would be the text "None"."""
    if value is None:
        return "null"
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).strip() if _holds_none(value) else value


def _holds_none(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_none, value.values()))
    return any(map(_holds_none, value)) if isinstance(value, list) else value is None


def text(config: dict[str, Any], header: str = "") -> str:
    """YAML, with the keys in the order given."""
    return header + str(yaml.safe_dump(config, sort_keys=False, width=120))
