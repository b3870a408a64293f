"""The ``lightning-cl`` command: ``fit``, ``validate``, ``test`` and ``predict`` on a stream, ``check``, and ``list``.

Help and listings are answered before torch is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lightning_cl import __version__
from lightning_cl.cli_support.catalogue import KINDS, entries
from lightning_cl.cli_support.comparing_options import HELP as COMPARE_HELP
from lightning_cl.cli_support.comparing_options import read_options
from lightning_cl.cli_support.completion import script
from lightning_cl.cli_support.configs import UsageError, resolve_configs, suggestion

RUNS = ("fit", "validate", "test", "predict")
COMMANDS = (*RUNS, "check", "sweep", "compare", "report", "reproduce", "completion", "list")
HELP = """\
usage: lightning-cl COMMAND [options]

Continual learning for PyTorch Lightning: one `fit` runs a whole stream of tasks.

commands:
  fit | validate | test | predict     run a stream; `lightning-cl fit --help` shows every option
  check NAME|CONFIG|RUN_DIR           can the numbers be trusted? A short trial of a config, or a look at a finished
                                      run; exit code 1 if its evaluation protocol is violated
  reproduce NAME [--seeds 0,1,2]      run a claim of the ledger over its seeds and compare; `--list` shows all claims
  compare --methods A,B --config STREAM
                                      several methods on one stream, over several seeds: one table of results and costs
  completion bash|zsh|fish            a script that completes commands, recipes and options in your shell
  sweep RECIPE --param PATH=VALUES    try values of hyperparameters, on another stream than they are evaluated on: a W&B
                                      sweep file, or trials on this machine; `lightning-cl sweep --help`
  report DIR...                       one HTML page of a run, or of several side by side
  list methods|sources|scenarios|recipes|callbacks

options of the runs:
  --config NAME        a packaged recipe (`lightning-cl list recipes`) or the path of a YAML file; several compose,
                       later ones win
  --data.batch_size 32, --trainer.devices 2, ...
                       any value of the config by its dotted name
  --trainer.callbacks+ ProtocolGuard
                       one more callback; methods, sources, scenarios and models are known by their short names
  --callbacks.CODAPrompt.prompt_length 4
                       an argument of one of the callbacks
  --print_config       show the whole configuration and stop
  --ckpt_path PATH     continue, or evaluate, a checkpoint
  --debug              tracebacks instead of messages (or LIGHTNING_CL_DEBUG=1)
  --version

example:
  lightning-cl fit --config digits_coda_prompt
"""
CHECK_HELP = """\
usage: lightning-cl check NAME|CONFIG|RUN_DIR [options as for `fit`]

Can the numbers be trusted? Prints a protocol card: do predictions depend on the batch, is the task or a label told at
test time, are unseen classes predicted, is anything chosen by the test split, is evaluation data trained on, ...

  NAME, CONFIG         a recipe or a YAML file: builds everything, trains on a few batches of two tasks, and looks;
                       nothing is written
  RUN_DIR              the folder of a run: its recorded card, and a new look at its newest checkpoint

exit code: 0 no violation, 1 violation, 2 cannot be checked
`--trainer.callbacks+ ProtocolGuard` makes the same checks after every task of a run.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 for a command line or a configuration that cannot be run.

    ``check`` returns 1 if the protocol is violated.

    Args:
        arguments: The words after ``lightning-cl``; those of this process when ``None``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or os.environ.get("LIGHTNING_CL_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words, debug)
    except UsageError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("\nlightning-cl: interrupted before the run began.", file=sys.stderr)
        return 130


def _dispatch(words: list[str], debug: bool) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if words[0] in ("--version", "version"):
        print(f"lightning-cl {__version__}")
        return 0
    if words[0] == "report":
        return _report(words[1:])
    if words[0] == "list":
        return _list(words[1:])
    if words[0] == "check":
        return _check(words[1:], debug)
    if words[0] == "sweep":
        return _sweep(words[1:], debug)
    if words[0] == "compare":
        return _compare(words[1:], debug)
    if words[0] == "completion":
        print(script(words[1:], COMMANDS, RUNS), end="")
        return 0
    if words[0] == "reproduce":
        return _reproduce(words[1:], debug)
    if not words[0].startswith("-") and words[0] not in RUNS:
        raise UsageError(f"unknown command `{words[0]}`; " + suggestion(words[0], COMMANDS, "lightning-cl --help"))
    resolved, paths = resolve_configs(words)
    from lightning_cl.cli_support.command import run  # imports torch

    return run(resolved, paths, debug)


def _check(words: list[str], debug: bool) -> int:
    if not words or any(word in ("-h", "--help") for word in words):
        print(CHECK_HELP, end="")
        return 0 if words else 2
    from lightning_cl.cli_support.checking import check  # imports torch

    return check(words, debug)


def _reproduce(words: list[str], debug: bool) -> int:
    from lightning_cl.cli_support.reproducing import REPRODUCE_HELP, reproduce

    if not words or any(word in ("-h", "--help") for word in words):
        print(REPRODUCE_HELP, end="")
        return 0 if words else 2
    return reproduce(words, debug)


def _compare(words: list[str], debug: bool) -> int:
    if not words or any(word in ("-h", "--help") for word in words):
        print(COMPARE_HELP, end="")
        return 0 if words else 2
    read_options(words)  # what is wrong with them is said at once
    from lightning_cl.cli_support.comparing import compare  # imports torch

    return compare(words, debug)


def _sweep(words: list[str], debug: bool) -> int:
    if not words or any(word in ("-h", "--help") for word in words):
        from lightning_cl.cli_support.sweeping_options import HELP

        print(HELP, end="")
        return 0 if words else 2
    from lightning_cl.cli_support.sweeping import sweep  # imports torch

    return sweep(words, debug)


def _report(words: list[str]) -> int:
    from lightning_cl.cli_support.reporting import REPORT_HELP, report

    if not words or any(word in ("-h", "--help") for word in words):
        print(REPORT_HELP, end="")
        return 0 if words else 2
    return report(words)


def _list(words: list[str]) -> int:
    if any(word in ("-h", "--help") for word in words):
        print(f"usage: lightning-cl list [{'|'.join(KINDS)}]")
        return 0
    unknown = [word for word in words if word not in KINDS]
    if unknown:
        raise UsageError(f"there is nothing called `{unknown[0]}` to list; choose from {', '.join(KINDS)}.")
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for kind in words or KINDS:
        table = Table(title=kind, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="bold")
        table.add_column()
        for entry in entries(kind):
            table.add_row(entry.name, Text(entry.summary))  # brackets are no markup
        console.print(table)
    return 0


def _fail(message: str) -> int:
    print(f"lightning-cl: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
