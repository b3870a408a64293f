"""What may stand behind ``lightning-cl sweep``; no torch, so its help is there at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from lightning_cl.cli_support.configs import UsageError

HELP = """\
usage: lightning-cl sweep RECIPE --param PATH=VALUES [--param ...] [options] [options as for `fit`]

Prints a W&B sweep file; with --local, tries the values here. Hyperparameters are chosen on a tuning stream and the best
ones evaluated on another: no trial sees the test split.

parameters:
  --param callbacks.CODAPrompt.prompt_length=4,8     a list of values
  --param model.lr=1e-4..1e-2:log                    a range; `:log`: uniform in the logarithm
  --param data.batch_size=8..64                      a range of whole numbers
                       callbacks.CLASS.ARGUMENT, model.ARGUMENT, data.ARGUMENT, data.scenario.ARGUMENT,
                       trainer.ARGUMENT, or the end of a path that no other has: `prompt_length`

options:
  --method grid|random|bayes    grid if all parameters are lists, else bayes (with --local: TPE)
  --metric NAME        as `ContinualEvaluation` logs it; class_il/average_accuracy
  --out FILE           write the sweep file, too
  --local N            N trials on this machine, in all: repeat the command to go on (needs `lightning-cl[sweep]`)
  --jobs N             so many of them at a time; 1
  --folder DIR         where trials, table, best.yaml and the final runs go; sweeps/RECIPE
  --seed N             of the search; 0

tuning and evaluation:
  --tune-on order|classes       other class orders of the same classes (order), or a seeded part of the classes that the
                       evaluation does without
  --tuning-seeds N     class orders per trial, the mean counts; 1
  --tuning-fraction F  share of the classes with `--tune-on classes`; 0.5
  --val-split F        share of the training split that trials are measured on; 0.2
  --final-seeds N      then runs the best values with the seeds 0 to N-1 on the evaluation stream; 3, 0: none
  --evaluate-again     evaluate other values than before on the same stream; the report says so

example:
  lightning-cl sweep digits_coda_prompt --param callbacks.CODAPrompt.prompt_length=4,8 --local 2
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `lightning-cl sweep --help` shows the options.")


def _count(least: int) -> type:
    def count(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"it is {text!r}; give a whole number of at least {least}")
        return int(text)

    return count  # type: ignore[return-value]  # argparse takes any function


def _parser() -> _Parser:
    parser = _Parser(prog="lightning-cl sweep", add_help=False, allow_abbrev=False)
    parser.add_argument("--param", action="append", default=[])
    parser.add_argument("--method", choices=("grid", "random", "bayes"))
    parser.add_argument("--metric", default="class_il/average_accuracy")
    parser.add_argument("--out")
    parser.add_argument("--local", type=_count(1))
    parser.add_argument("--jobs", type=_count(1), default=1)
    parser.add_argument("--folder")
    parser.add_argument("--seed", type=_count(0), default=0)
    parser.add_argument("--tune-on", choices=("order", "classes"), default="order")
    parser.add_argument("--tuning-seeds", type=_count(1), default=1)
    parser.add_argument("--tuning-fraction", type=float, default=0.5)
    parser.add_argument("--val-split", type=float, default=0.2)
    parser.add_argument("--final-seeds", type=_count(0), default=3)
    parser.add_argument("--evaluate-again", action="store_true")
    return parser


def option_choices() -> dict[str, list[str]]:
    """Every option of a sweep, and the values of those that have a choice."""
    return {action.option_strings[0]: [*(action.choices or ())] for action in _parser()._actions}


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of a sweep, and the words for ``fit``.

    Raises:
        UsageError: If an option is unknown or has a wrong value, or there is no recipe.
    """
    first = [] if not words or words[0].startswith("-") else ["--config", words[0]]
    options, rest = _parser().parse_known_args(list(words[1:] if first else words))
    if not first and not any(word.partition("=")[0] in ("--config", "-c") for word in rest):
        raise UsageError("there is nothing to sweep; begin with a recipe: `lightning-cl sweep digits_coda_prompt ...`.")
    return options, [*first, *rest]
