"""Write a comparison of methods as tables and a figure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from lightning_cl.reports.compared_runs import (
    COLUMNS,
    Column,
    ComparedRuns,
    Failure,
    Run,
    mean_and_deviation,
    values_of,
)
from lightning_cl.reports.comparison_plots import plot_comparison
from lightning_cl.reports.comparison_tables import markdown, runs_csv, summary_csv
from lightning_cl.reports.files import write_files, write_text

__all__ = ["COLUMNS", "Column", "Comparison", "Failure", "Run", "mean_and_deviation", "values_of"]
FILES = ("runs.csv", "comparison.csv", "comparison.md", "comparison.png")


class Comparison(ComparedRuns):
    """Runs of methods on one stream, with the same seeds, as files; see :class:`ComparedRuns`."""

    def write(self, folder: str | Path) -> Path:
        """Write ``runs.csv``, ``comparison.csv``, ``comparison.md`` and ``comparison.png``; older ones are replaced.

        Returns:
            The folder, made if missing.
        """
        texts = {"runs.csv": runs_csv(self), "comparison.csv": summary_csv(self), "comparison.md": markdown(self)}
        writers: dict[str, Callable[[Path], None]] = {n: partial(write_text, text=text) for n, text in texts.items()}
        writers["comparison.png"] = lambda path: plot_comparison(self)[0].savefig(path)
        write_files(Path(folder), writers, FILES, keep_previous=False)
        return Path(folder)
