"""The commands of ``lightning-cl`` that are none of its runs, with their options and texts; imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lightning_cl.cli.catalogue import KINDS
from lightning_cl.cli.configs import UsageError

RUNS = ("fit", "validate", "test", "predict")
FORMATS = ("table", "csv", "jsonl")
EXPORTS = ("torch-export", "onnx", "safetensors")
#: Short names of packaged streams, for `bench`.
SUITES = {"si_blurry": "digits_si_blurry"}
SHELLS = ("bash", "zsh", "fish")
SEARCHES = ("grid", "random", "bayes")
VALUE_FORMS = "`a,b,c`, `low..high` or `low..high:log`"


def count(text: str, least: int = 1) -> int:
    """A whole number of at least that."""
    if not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"it is {text!r}; give a whole number of at least {least}")
    return int(text)


def values(text: str) -> str:
    """``PATH=VALUES``, with something on both sides."""
    path, equals, given = text.partition("=")
    if not equals or not path or not given.strip():
        raise UsageError(f"`--param {text}` has no values; write `--param {path or 'PATH'}=VALUES` with {VALUE_FORMS}.")
    return text


class Once(argparse.Action):
    """Stores a value, and refuses a second one."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Called by the parser."""
        if getattr(namespace, self.dest) is not self.default:
            raise UsageError(f"`{option_string}` is given twice; give it once.")
        setattr(namespace, self.dest, values)


class Command(NamedTuple):
    """A command that is none of the runs."""

    module: str  # its ``main`` carries it out
    usage: str
    example: str
    text: str  # in its own help, the first sentence also in the overview
    target: str  # its first word, and what that is
    options: tuple[tuple[str, str, str, Mapping[str, Any]], ...] = ()  # names, value, what it does, for argparse
    end: str = ""
    for_fit: bool = True  # further words are those of ``fit``
    alone: bool = False  # it does something without any word


_FLAG, _EACH, _ONCE = {"action": "store_true"}, {"action": "append", "default": []}, {"action": Once}
_NUMBER = partial(count, least=0)
_PARAM = {**_EACH, "type": values}
#: Of the stream that values are tried on.
_TUNING = (
    (
        "--tune-on",
        "order|classes",
        "other class orders, or a seeded part of the classes that the evaluation does without",
        {"choices": ("order", "classes"), "default": "order"},
    ),
    ("--tuning-fraction", "F", "of the classes, with `--tune-on classes`; 0.5 by default", {"type": float}),
)
COMMANDS = {
    "learn": Command(
        "lessons",
        "DATA --into DIR [--method NAME] [options] | --into DIR --to VERSION",
        "lightning-cl learn photos/january --into models/birds",
        """\
Teaches a model one more folder of images. The first call makes the model folder DIR, every later one adds a version to
it; classes are known by the names of their folders. A call that was stopped or killed goes on by the same command. By
default nothing is trained and no image is kept: class means with one covariance on a frozen backbone.""",
        "DATA  a folder with CLASS/ or with train/CLASS/ and test/CLASS/; without: the call that was stopped",
        (
            ("--into", "DIR", "the model folder", {**_ONCE, "type": Path}),
            ("--to", "VERSION", "go back to a version; all stay", {**_ONCE, "type": count}),
            ("--rename", "OLD=NEW", "a class of DATA; without DATA, of the model", _EACH),
            ("--merge", "OLD=NEW", "two classes of the model are one, where the method can", _EACH),
            ("--forget", "NAME", "forget a class, where the method can", _EACH),
            ("--epochs", "N", "passes over DATA, for methods that train", {"type": count}),
            ("--test-fraction", "F", "of each class held out, if DATA has no test folder; 0: none", {"type": float}),
            ("--wandb", "PROJECT", "one W&B run for this call, in a group of the model's name", _ONCE),
            ("--method", "NAME", "first call: a method (`lightning-cl list methods`)", _EACH),
            ("--backbone", "NAME", "first call: a name that timm knows", _ONCE),
            ("--weights", "FILE", "first call: a local file with the backbone's weights", _ONCE),
            ("--image-size", "N", "first call: pixels, if others than the backbone's", {"type": count}),
            ("--batch-size", "N", "first call: images in a training batch", {"type": count}),
            ("--seed", "N", "first call", {"type": _NUMBER}),
            ("--config", "FILE", "first call: YAML with `model`, `methods`, ...", _ONCE),
        ),
        "example:\n  lightning-cl learn month1 --into birds",
        for_fit=False,
    ),
    "predict": Command(
        "predictions",
        "DIR IMAGES... [--format table|csv|jsonl] [options] | --config NAME --ckpt_path PATH",
        "lightning-cl predict models/birds photo.jpg",
        """\
Says what images show: class names and probabilities. With `--config` first it is a run of LightningCLI, as `fit`.""",
        "DIR  a model folder or the folder of a run; then files, folders, or `-` for paths on standard input",
        (
            ("--format", "FORMAT", "table, csv (all classes) or jsonl", {"choices": FORMATS, "default": "table"}),
            ("--top", "N", "so many classes", {"type": count, "default": 3}),
            ("--version", "N", "of the model folder; the current one by default", {"type": count}),
            ("--batch-size", "N", "images at a time", {"type": count, "default": 64}),
            ("--output -o", "FILE", "write there", {"type": Path}),
        ),
        for_fit=False,
    ),
    "export": Command(
        "exports",
        "DIR [--format torch-export|onnx|safetensors] [--output FILE]",
        "lightning-cl export models/birds --format onnx",
        """\
Writes a model for other programs, with class names and preprocessing in the metadata. A graph answers as the model
does, to 1e-5, or is not written.""",
        "DIR  a model folder or the folder of a run",
        (
            ("--format", "FORMAT", "|".join(EXPORTS), {"choices": EXPORTS, "default": "torch-export"}),
            ("--version", "N", "of the model folder; the current one by default", {"type": count}),
            ("--output -o", "FILE", "DIR/model with the form's suffix by default", {"type": Path}),
        ),
        for_fit=False,
    ),
    "check": Command(
        "protocol_check",
        "NAME|CONFIG|RUN_DIR [options as for `fit`]",
        "lightning-cl check digits_prototypes",
        """\
Shows whether the numbers can be trusted. Prints a protocol card: do predictions depend on the batch, is the task or a
label told at test time, are unseen classes predicted, is anything chosen by the test split, is evaluation data trained
on, ... A config is built, trained on a few batches of two tasks and looked at, and nothing is written. Of a finished
run: its recorded card, and a new look at its newest checkpoint.""",
        "NAME|CONFIG|RUN_DIR  a recipe, a YAML file or the folder of a run",
        end="""\
exit code: 0 no violation, 1 violation, 2 cannot be checked
`--trainer.callbacks+ ProtocolGuard` makes the same checks after every task of a run.""",
    ),
    "reproduce": Command(
        "reproduction",
        "NAME [--seeds 0,1,2] [--update] [options as for `fit`]",
        "lightning-cl reproduce digits_prototypes --seeds 0",
        """\
Runs a claim of the ledger over its seeds and compares. The reference is what was published, or else what was measured
before; prints the verdict and the updated entry.""",
        "NAME  of a claim; or one of --list and --markdown",
        (
            ("--seeds", "0,1,2", "instead of the claim's own", {}),
            (
                "--update",
                "",
                "write the entry back into the ledger; not together with options that change the run",
                _FLAG,
            ),
            ("--ledger", "FOLDER", "a ledger of your own, one YAML a claim", {"type": Path}),
            ("--runs", "FOLDER", "where the runs go", {"type": Path, "default": Path("runs", "reproduce")}),
            ("--list", "", "all claims with their status", _FLAG),
            ("--markdown", "", "all claims as a page", _FLAG),
        ),
        "exit code: 0 within tolerance (or nothing to compare with), 1 outside, 2 cannot be run",
    ),
    "compare": Command(
        "comparison_options",
        "--methods A,B --config STREAM [--seeds 3] [options as for `fit`] | RUN_DIR... [--folder DIR]",
        "lightning-cl compare --methods finetune,prototypes --config digits --seeds 1",
        """\
Runs several methods on one stream, over several seeds, for one table of results and costs. Each run has a process of
its own; costs are time, images through the network, parameters, stored bytes and latency.

Runs lie in DIR/STREAM/METHOD/seed0, with their configuration in run.yaml and what they print in output.txt. The same
command again reuses finished runs and continues interrupted ones; a run of another configuration is kept as seed0-1.
Tables: comparison.md, comparison.csv, runs.csv and comparison.png in DIR/STREAM.""",
        "RUN_DIR  folders of finished runs, or of a comparison: only the table is made",
        (
            ("--methods", "A,B", "packaged ones (`lightning-cl list recipes`), YAML files, names of callbacks", _ONCE),
            ("--config -c", "STREAM", "a packaged stream or a YAML file; further ones win over the methods", _EACH),
            ("--seeds", "3", "seeds 0, 1, 2 for `seed_everything` and `data.seed`; `--seeds 1,3,5` gives them", _ONCE),
            ("--align", "memory", "equal stored bytes: memories grow until all store as much as the largest", _ONCE),
            ("--folder", "DIR", "where runs and tables go; runs/compare by default", {**_ONCE, "type": Path}),
        ),
        "exit code: 0 all runs have a result, 1 some failed, 2 nothing can be compared, 130 interrupted",
    ),
    "bench": Command(
        "bench",
        "SUITE [--methods A,B] [--seeds 3] [--param PATH=VALUES] [options as for `fit`] | --page FILE",
        "lightning-cl bench digits --methods finetune,prototypes,er --seeds 1",
        """\
Runs every method on one stream, and ranks them. Without --methods: all that are packaged; those that cannot run on
the stream are named with the reason. Runs are kept and continued as those of `compare`; results go into a ledger, and
onto a page that opens offline. With --page alone: the page of what the package itself has measured. With --param every
method first tries the same values on another stream, as `sweep --local` does, and its seeds are run with the best.""",
        "SUITE  digits, si_blurry, another packaged stream or a YAML file",
        (
            ("--methods", "A,B", "as for `compare`; all without", _ONCE),
            ("--seeds", "3", "seeds 0, 1, 2 for `seed_everything` and `data.seed`; `--seeds 1,3,5` gives them", _ONCE),
            (
                "--budget",
                "bytes=N",
                "what a run may store (memories fill it), or `samples=N` through the network; more is not ranked",
                _ONCE,
            ),
            ("--param", "PATH=VALUES", "values that every method tries on a tuning stream, all combinations", _PARAM),
            *_TUNING,
            ("--folder", "DIR", "where runs and tables go; runs/bench by default", {**_ONCE, "type": Path}),
            ("--ledger", "FOLDER", "where results are entered; DIR/SUITE/ledger by default", {"type": Path}),
            ("--page", "FILE", "leaderboard.html in DIR/SUITE by default", {"type": Path}),
        ),
        "exit code: 0 all runs have a result, 1 some failed, 2 nothing can be ranked, 130 interrupted",
    ),
    "sweep": Command(
        "sweep",
        "RECIPE --param PATH=VALUES [--param ...] [options] [options as for `fit`]",
        "lightning-cl sweep digits_coda_prompt --param callbacks.CODAPrompt.prompt_length=4,8 --local 2",
        """\
Tries values of hyperparameters, on another stream than they are evaluated on. Prints a W&B sweep file; with --local,
tries the values here, and evaluates the best: no trial sees the test split.

parameters:
  --param callbacks.CODAPrompt.prompt_length=4,8     a list of values
  --param model.lr=1e-4..1e-2:log                    a range; `:log`: uniform in the logarithm
  --param data.batch_size=8..64                      a range of whole numbers
                       callbacks.CLASS.ARGUMENT, model.ARGUMENT, data.ARGUMENT, data.scenario.ARGUMENT,
                       trainer.ARGUMENT, or the end of a path that no other has: `prompt_length`""",
        "RECIPE  or a YAML file",
        (
            ("--param", "PATH=VALUES", "an argument, and what it may be", _PARAM),
            ("--method", "|".join(SEARCHES), "grid if all are lists, else bayes (--local: TPE)", {"choices": SEARCHES}),
            ("--metric", "NAME", "as `ContinualEvaluation` logs it", {"default": "class_il/average_accuracy"}),
            ("--out", "FILE", "write the sweep file, too", {"type": Path}),
            ("--local", "N", "N trials here, in all: repeat to go on (needs `lightning-cl[sweep]`)", {"type": count}),
            ("--jobs", "N", "so many of them at a time", {"type": count, "default": 1}),
            ("--folder", "DIR", "of trials, table, best.yaml and the final runs; sweeps/RECIPE", {"type": Path}),
            ("--seed", "N", "of the search", {"type": _NUMBER, "default": 0}),
            *_TUNING,
            ("--tuning-seeds", "N", "class orders per trial, the mean counts", {"type": count, "default": 1}),
            ("--val-split", "F", "of the training split, to measure trials on", {"type": float, "default": 0.2}),
            (
                "--final-seeds",
                "N",
                "then run the best values with seeds 0 to N-1; 0: none",
                {"type": _NUMBER, "default": 3},
            ),
            ("--evaluate-again", "", "evaluate other values than before on the same stream; reports say so", _FLAG),
        ),
    ),
    "report": Command(
        "report_files",
        "DIR... [--output FILE]",
        "lightning-cl report runs/digits_prototypes",
        """\
Writes one HTML page of a finished (or interrupted) run, or of several side by side. It has accuracy matrix, curves,
metrics with their definitions, protocol card, stream, methods and versions, and needs no network and no other file.""",
        "DIR  of a run, or its continual_report.json; of a folder with version_* the newest",
        (("--output -o", "FILE", "report.html in DIR; of several, comparison.html here", {"type": Path}),),
        for_fit=False,
    ),
    "completion": Command(
        "completion",
        "|".join(SHELLS),
        "lightning-cl completion bash",
        """\
Prints a script that completes commands, recipes, methods, classes and options. To have it in every shell:

  bash   lightning-cl completion bash > ~/.local/share/bash-completion/completions/lightning-cl
  zsh    lightning-cl completion zsh > DIR/_lightning-cl    (DIR is in $fpath, before compinit is called)
  fish   lightning-cl completion fish > ~/.config/fish/completions/lightning-cl.fish""",
        "SHELL  its name",
        for_fit=False,
        alone=True,
    ),
    "list": Command(
        "catalogue",
        "|".join(KINDS),
        "lightning-cl list recipes",
        "Shows what a configuration may name.",
        "KIND  one or several; all without",
        for_fit=False,
        alone=True,
    ),
}
