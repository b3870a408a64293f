"""Run ``lightning-cl learn``: teach a model folder one more folder of images, or go back to a version."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cl.cli.configs import UsageError

if TYPE_CHECKING:
    from lightning_cl.lifelong import LearnedModel, Taught

#: Options of the first call, which say what the model is.
_OF_FIRST = ("method", "backbone", "weights", "image_size", "batch_size", "seed", "config")


def main(options: argparse.Namespace, rest: Sequence[str], debug: bool) -> int:
    """Do what one call asks for; 0, or 130 after Ctrl-C."""
    if rest:
        raise UsageError(f"`learn` takes one folder, but was given {rest[0]!r} too; call it once for each.")
    if options.into is None:
        raise UsageError("`learn` needs a model folder, which the first call makes; give it with `--into DIR`.")
    return said_to_user(lambda: _run(options), debug)


def _run(options: argparse.Namespace) -> int:
    stated = [name for name in ("rename", "merge", "forget", "to") if getattr(options, name)]
    check_together(bool(options.target), stated)
    model = _opened(options)
    renamed = [pair(text, "rename") for text in options.rename]
    if options.to is not None:
        model.to(options.to)
        print(f"{options.into} is at version {options.to}: {', '.join(model.class_names)}.")
        return 0
    if not options.target and stated:
        _state(model, renamed, options)
        return 0
    try:
        taught = model.learn(
            options.target or None,
            rename=dict(renamed),
            epochs=options.epochs,
            test_fraction=options.test_fraction,
            loggers=_loggers(model, options),
        )
    except (KeyboardInterrupt, SystemExit):
        print(f"\nlightning-cl: stopped; `lightning-cl learn --into {options.into}` goes on.", file=sys.stderr)
        return 130
    print("\n".join(summary(taught, options.into)))
    return 0


def check_together(with_data: bool, stated: Sequence[str]) -> None:
    """Refuse options of which a call would leave out one; with data, only ``rename`` means them.

    Args:
        with_data: Whether the call has data to learn.
        stated: Which of ``rename``, ``merge``, ``forget`` and ``to`` are given.
    """
    if "to" in stated and with_data:
        raise UsageError("`--to` goes back to a version, which learns nothing; call `learn` for data after that.")
    if "to" in stated and len(stated) > 1:
        raise UsageError(f"`--to` goes back to a version and `--{stated[0]}` makes one; call `learn` once for each.")
    changing = [name for name in stated if name != "rename"]
    if with_data and changing:
        raise UsageError(f"`--{changing[0]}` changes the model, and data teach it; call `learn` once for each.")


def _opened(options: argparse.Namespace) -> LearnedModel:
    """The model folder; a new one is described by the options of the first call."""
    from lightning_cl.lifelong import load
    from lightning_cl.lifelong.call import unfinished_call
    from lightning_cl.lifelong.model_folder import ModelFolder
    from lightning_cl.lifelong.run_folder import is_run

    given = [name for name in _OF_FIRST if getattr(options, name) not in (None, [])]
    folder = ModelFolder(options.into)
    if folder.exists() or unfinished_call(folder) is not None or is_run(folder.path):
        if given:
            raise UsageError(
                f"`--{given[0].replace('_', '-')}` says what a new model is, but there is one in {options.into}; leave "
                "it out, or give another folder."
            )
        return load(options.into)
    if not options.target:
        raise UsageError(f"there is no model in {options.into}; make one with `lightning-cl learn DATA --into DIR`.")
    return _new(options)


def _new(options: argparse.Namespace) -> LearnedModel:
    from lightning_cl.lifelong.configuration import Configuration
    from lightning_cl.lifelong.learned_model import LearnedModel
    from lightning_cl.lifelong.model_folder import ModelFolder
    from lightning_cl.lifelong.new_model import configured

    names = ("method", "backbone", "weights", "image_size", "batch_size", "epochs", "seed", "test_fraction", "config")
    configuration: Configuration = configured(**{name: getattr(options, name) for name in names})
    return LearnedModel(ModelFolder(options.into), configuration)


def _state(model: LearnedModel, renamed: Sequence[tuple[str, str]], options: argparse.Namespace) -> None:
    for old, new in renamed:
        print(f"Version {model.rename(old, new)}: {old!r} is called {new!r}.")
    for old, into in (pair(text, "merge") for text in options.merge):
        print(f"Version {model.merge(old, into)}: what was learned of {old!r} counts as {into!r}.")
    for name in options.forget:
        number = model.forget(name)
        print(f"Version {number}: {name!r} is forgotten; earlier versions still know it (delete their folders).")


def _loggers(model: LearnedModel, options: argparse.Namespace) -> list[Any]:
    if options.wandb is None:
        return []
    from lightning_cl.lifelong.wandb_runs import wandb_logger

    return [wandb_logger(model.folder, options.wandb)]


def summary(taught: Taught, folder: Path) -> list[str]:
    """What a call has learned, in words."""
    known = [name for name in taught.classes if name not in taught.new_classes]
    parts = [f"{what}: {', '.join(names)}" for what, names in (("new", taught.new_classes), ("again", known)) if names]
    lines = [
        f"Version {taught.version} of {folder}: learned {len(taught.classes)} classes from {taught.images} images "
        f"({'; '.join(parts)})."
    ]
    if taught.accuracy is not None:
        lines.append(f"Accuracy {100 * taught.accuracy:.1f} % on all held-out images that are there.")
    if taught.before is not None and taught.before_then is not None:
        before, then = 100 * taught.before, 100 * taught.before_then
        lines.append(f"On what it knew before: {before:.1f} %, after {then:.1f} % when that was learned.")
    lines += [f"Note: {note}." for note in taught.notes]
    back = f"; `--to {taught.version - 1}` undoes this" if taught.version > 1 else ""
    return [*lines, f"Report: {Path(folder) / 'report'}{back}."]


def pair(text: str, option: str) -> tuple[str, str]:
    """``OLD=NEW`` as two names."""
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise UsageError(f"`--{option}` is {text!r}; give OLD=NEW.")
    return old, new


def said_to_user(action: Callable[[], int], debug: bool) -> int:
    """Do it; what the package, or a file, has to say of bad input becomes one sentence."""
    try:
        with quiet():
            return action()
    except UsageError:
        raise
    except (ValueError, OSError) as error:
        if debug:
            raise
        raise UsageError(f"{error} (`--debug` shows the traceback)") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what others say while a model learns or answers, and is no news here."""
    from lightning_cl.cli import terminal
    from lightning_cl.namespace import PYTORCH

    loggers = [logging.getLogger(name) for name in (PYTORCH, f"{PYTORCH}.utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    with terminal.quiet():
        warnings.filterwarnings("ignore", module=r"(lightning|pytorch_lightning|torch)\b")
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
