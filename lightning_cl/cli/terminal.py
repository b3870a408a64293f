"""Keep the terminal of a run for its own words: no tips, hints and counts of others, and no line through the bar."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from lightning_cl.namespace import FABRIC, PYTORCH

#: What Lightning and others say that is no news to whoever typed the command, or wrong on a stream.
_NO_NEWS = (
    "Tip: ",
    "GPU available",
    "TPU available",
    "HPU available",
    "Seed set to",
    "`Trainer.fit` stopped: ",
    "LOCAL_RANK: ",
    "was configured so ",
)
_WRONG_HERE = (
    *(f"{name}.*deprecated" for name in ("instantiate_classes", "skip_none", "LeafSpec")),  # of others
    "`max_epochs` was not set",
    "The number of training batches .* is smaller than the logging interval",
)


class AboveBar(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what is the standard error now: a progress bar puts itself there to print lines above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.stream = sys.stderr
        super().emit(record)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what is no news, and let the rest be printed above a progress bar, without its place in the source."""
    for name in (PYTORCH.partition(".")[0], PYTORCH, FABRIC):
        logger = logging.getLogger(name)
        logger.handlers = [AboveBar() if type(h) is logging.StreamHandler else h for h in logger.handlers]
        for part in (name, f"{name}.utilities.rank_zero", f"{name}.utilities.seed"):
            logging.getLogger(part).addFilter(is_news)
    before, warnings.formatwarning = warnings.formatwarning, said
    try:
        with warnings.catch_warnings():
            for hint in _WRONG_HERE:
                warnings.filterwarnings("ignore", message=f".*{hint}")
            # Lightning's own class of hints that may be wrong: workers, `sync_dist`, folders that are not empty
            hints = import_module(f"{FABRIC}.utilities.warnings").PossibleUserWarning
            warnings.filterwarnings("ignore", category=hints)
            yield
    finally:
        warnings.formatwarning = before


def said(message: Warning | str, category: object, filename: str, lineno: int, line: str | None = None) -> str:
    """A warning without the place in the source that it comes from."""
    return f"Warning: {message}\n"


def is_news(record: logging.LogRecord) -> bool:
    """Whether a record is shown."""
    text = record.getMessage()
    return not any(part in text for part in _NO_NEWS)
