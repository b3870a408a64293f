"""Write the help of ``fit`` and the other runs: what is typed most, from source text; no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from lightning_cl.cli.signatures import Parameter, model_parameters, run_parameters, stream_parameters
from lightning_cl.cli.signatures import trainer_parameters as all_of_trainer

#: Texts of the overview.
RUN_HELP = {
    "fit": "fit NAME: train on a stream of tasks and evaluate after every task",
    "validate": "validate NAME: evaluate a checkpoint on the tasks seen so far",
    "test": "test NAME: evaluate a checkpoint on the test data",
}
ABOUT = """\
Continual learning for PyTorch Lightning: one `fit` runs a whole stream of tasks.

example:
  lightning-cl fit digits_coda_prompt
"""
EPILOG = """\
options of the runs:
  NAME                 a packaged recipe (`lightning-cl list recipes`), a stream and a method, or the path of a YAML
                       file; of several, later ones win; short for `--config NAME`
  --data.batch_size 32, --trainer.devices 2, ...
                       any value of the config by its dotted name
  --trainer.callbacks+ ProtocolGuard
                       one more callback; methods, sources, scenarios and models are known by their short names
  --callbacks.CODAPrompt.prompt_length 4
                       an argument of one of the callbacks
  --print_config       show the whole configuration and stop
  --ckpt_path PATH     continue, or evaluate, a checkpoint
  --debug              tracebacks instead of messages (or LIGHTNING_CL_DEBUG=1)
"""
_WIDTH = 118
_CHECKPOINT = "checkpoint to go on from, or to evaluate; last: the newest of this run"
_DOES = {
    "fit": "Trains a model on a stream of tasks, evaluates it after every task, and writes a report into runs/.",
    "validate": "Evaluates a checkpoint on the tasks that it has seen.",
    "test": "Evaluates a checkpoint on the test data of all tasks that it has seen.",
}
#: The Trainer's arguments that are typed most, in the words of this package.
_OFTEN = {
    "accelerator": "cpu, gpu, mps or auto",
    "devices": "how many of them",
    "strategy": "auto, ddp, ...",
    "precision": "32-true, bf16-mixed, 16-mixed, ...",
    "logger": "CSVLogger, WandbLogger, ...; false: no logger and no files",
    "default_root_dir": "folder of a run without a logger",
    "callbacks+": "one more callback: a method (`lightning-cl list methods`), ProtocolGuard, EarlyStopping, ...",
    "max_epochs": "end after so many epochs of all tasks together; for each task it is --data.epochs_per_task",
    "fast_dev_run": "true: one batch of everything, no files",
    "limit_train_batches": "so many batches of each epoch",
    "enable_model_summary": "true: a table of the layers at the start",
}


def page(run: str) -> str:
    """The text of ``lightning-cl fit --help``, or of another of the runs."""
    again = "" if run == "fit" else " --ckpt_path last"
    lines = [
        f"usage: lightning-cl {run} NAME... [options]",
        "",
        "example:",
        f"  lightning-cl {run} digits_coda_prompt --data.batch_size 32{again}",
        "",
        *_wrap(
            f"{_DOES[run]} NAME is a recipe (`lightning-cl list recipes`), a stream and a method (`digits "
            "coda_prompt`) or a YAML file; of several, later ones win.",
            "",
        ),
        "",
        *_section("the run", [*_own(), *run_parameters(run)], ""),
        *_section("the stream", stream_parameters(), "data."),
        *_section("the model, if it is ImageClassifier", model_parameters(), "model."),
        *_section("the Trainer", [Parameter(name, "", "", about) for name, about in _OFTEN.items()], "trainer."),
        *_wrap("and all others that it takes: " + ", ".join(_others()) + ".", "  "),
        "",
        "one argument of one callback, source or scenario:",
        "  --callbacks.CODAPrompt.prompt_length 4 --data.source.normalize true --data.scenario.num_tasks 2",
        f"what a class takes:  lightning-cl {run} --trainer.callbacks.help CODAPrompt",
        f"the whole config:    lightning-cl {run} digits_coda_prompt --print_config",
    ]
    return "\n".join(lines) + "\n"


def _own() -> list[Parameter]:
    return [
        Parameter("config", "", "", "what NAME stands for, anywhere in the line"),
        Parameter(
            "seed_everything", "", "", "of weights and of all that is drawn; the stream has its own, --data.seed"
        ),
        Parameter("num_threads", "", "", "CPU threads of each process"),
        Parameter("print_config", "", "", "show the whole configuration and stop"),
        Parameter("debug", "", "", "tracebacks instead of messages"),
    ]


def _others() -> list[str]:
    return [p.name for p in all_of_trainer() if p.name not in _OFTEN and p.name != "callbacks"]


def _section(title: str, known: Sequence[Parameter], prefix: str) -> list[str]:
    lines = [f"{title}:"]
    for parameter in known:
        if parameter.name in ("weights_only", "verbose", "return_predictions"):
            continue  # fixed, or Lightning's own
        default = f" ({parameter.default})" if parameter.default not in ("", "None") else ""
        about = _CHECKPOINT if parameter.name == "ckpt_path" else parameter.about
        option = f"  --{prefix}{parameter.name}"
        lines += _wrap(f"{option:<31} {about[:1].lower()}{about[1:]}{default}", " " * 32)
    return [*lines, ""]


def _wrap(text: str, indent: str) -> list[str]:
    first = indent if not text.startswith(" ") and len(indent) <= 2 else ""
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
