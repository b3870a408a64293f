"""The page that shows all claims of the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_cl.cli_support.ledger import Claim, status


def markdown(claims: Sequence[Claim]) -> str:
    """The page ``docs/ledger.md``."""
    published = [claim for claim in claims if claim.source is not None]
    own = [claim for claim in claims if claim.source is None and claim.recipe]
    others = [claim for claim in claims if claim.source is None and not claim.recipe]
    run = sum(claim.measured is not None for claim in claims)
    lines = [
        "# Reproduction ledger",
        "",
        "<!-- Made by `lightning-cl reproduce --markdown > docs/ledger.md` from lightning_cl/ledger/*.yaml. -->",
        "",
        f"{len(claims)} claims, {run} of them measured, {len(claims) - run} not yet run.",
        "`lightning-cl reproduce NAME` runs a claim over its seeds and compares; `--update` records what came out.",
        "*Stale*: the recipe has changed since it was measured.",
        "Mean ± standard deviation (N - 1) over the seeds. The entries, with source, hardware and minutes, are in",
        "`lightning_cl/ledger/`.",
    ]
    for title, part in (
        ("Published numbers", published),
        ("Numbers of the packaged recipes", own),
        ("Numbers of the benchmarks", others),
    ):
        lines += ["", f"## {title}", "", *_table(part)]
    return "\n".join(lines) + "\n"


def _table(claims: Sequence[Claim]) -> list[str]:
    rows = ["| Claim | Number | Published | Ours | Seeds | Status |", "| --- | --- | --- | --- | --- | --- |"]
    for claim in claims:
        for position, (metric, number) in enumerate(claim.numbers.items()):
            measured = claim.measured.numbers.get(metric) if claim.measured is not None else None
            ours = "" if measured is None else _spread(measured["mean"], measured["std"])
            seeds = "" if claim.measured is None else ", ".join(map(str, claim.measured.seeds))
            what = f"`{claim.name}`: {claim.claim}" if position == 0 else ""
            told = _spread(number.published, number.spread)
            if position == 0 and claim.source is not None and told:
                told += f" ({claim.source})"
            ending = (seeds, status(claim)) if position == 0 else ("", "")
            rows.append("| " + " | ".join((what, f"`{metric}`", told, ours, *ending)) + " |")
    return rows


def _spread(mean: float | None, std: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"
