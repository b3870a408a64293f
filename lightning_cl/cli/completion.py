"""Write the script with which a shell completes ``lightning-cl``, made of source text like the listings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lightning_cl.cli.catalogue import FOR_AUTHORS, KINDS, entries, exported
from lightning_cl.cli.commands import COMMANDS, RUNS, SHELLS, SUITES
from lightning_cl.cli.configs import PACKAGE, UsageError, part_names, recipe_names
from lightning_cl.cli.signatures import model_parameters, run_parameters, stream_parameters, trainer_parameters

#: Options that run on what ``fit`` gets, besides those of its classes.
_COMMON = ("--config", "--help", "--print_config", "--debug", "--seed_everything", "--num_threads", "--model", "--data")
#: Commands with options of their own, and those of ``fit`` behind.
_FOR_FIT = ("bench", "compare", "sweep")
_WITH_FILES = ("--page", "bench", "--config", "-c", "--methods", "--ckpt_path", "--folder", "--out", "check", *_FOR_FIT)


def main(options: argparse.Namespace, rest: Sequence[str], debug: bool) -> int:
    """Print the script for a shell."""
    shell = options.target
    if not shell or rest:
        raise UsageError(f"`completion` needs one shell: {', '.join(SHELLS)}.")
    if shell not in SHELLS:
        raise UsageError(f"there is no completion for `{shell}`; give {', '.join(SHELLS[:-1])} or {SHELLS[-1]}.")
    print(script(shell), end="")
    return 0


def script(shell: str) -> str:
    """The script for one of the shells."""
    if shell == "fish":
        return _fish()
    head = "#compdef lightning-cl\nautoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return head + _bash()


def fit_options() -> list[str]:
    """Every option of the runs, but for the arguments of classes that a configuration names."""
    found = [*_COMMON, "--trainer", "--trainer.callbacks+"]
    found += [f"--trainer.{parameter.name}" for parameter in trainer_parameters()]
    found += [f"--{parameter.name}" for parameter in run_parameters("fit")]
    found += [f"--data.{parameter.name}" for parameter in stream_parameters()]
    return found + [f"--model.{parameter.name}" for parameter in model_parameters()]


def own_options(command: str) -> dict[str, list[str]]:
    """The options of a command that are not those of ``fit``, and the values of those that have a choice."""
    found = {names.split()[0]: more for names, _, _, more in COMMANDS[command].options}
    return {name: [*more.get("choices", ())] for name, more in found.items() if name != "--config"}


def option_values() -> dict[str, list[str]]:
    """List the words that may follow an option (or a command), where they are a list of names."""
    recipes = [*recipe_names(), *part_names("streams"), *part_names("methods")]
    methods = [entry.name for entry in entries("methods")]
    callbacks = sorted(exported(PACKAGE / "callbacks" / "__init__.py") - FOR_AUTHORS)
    choices = {k: v for command in _FOR_FIT for k, v in own_options(command).items()}
    return {
        "--config": recipes,
        "-c": recipes,
        **{option: values for option, values in choices.items() if values},
        "--methods": [*part_names("methods"), *methods],
        "--align": ["memory"],
        "--data.source": [entry.name for entry in entries("sources")],
        "--data.scenario": [entry.name for entry in entries("scenarios")],
        "--model": sorted(exported(PACKAGE / "models" / "__init__.py")),
        "--trainer.callbacks+": callbacks,
        "--trainer.callbacks": callbacks,
        "--ckpt_path": ["last"],
        "check": recipes,
        "sweep": recipes,
        "bench": [*part_names("streams"), *SUITES],
        "list": list(KINDS),
        "completion": list(SHELLS),
    }


def _bash() -> str:
    values = {**{name: [] for name in _WITH_FILES if name != "compare"}, **option_values()}
    ends = {name: " files=yes" if name in _WITH_FILES else "" for name in values}
    cases = [f'        {name}) names="{" ".join(given)}"{ends[name]} ;;' for name, given in values.items()]
    words = {"commands": [*RUNS, *COMMANDS], "options": fit_options()}
    words |= {command: [*own_options(command)] for command in _FOR_FIT}
    text = Path(__file__).with_name("completion.bash").read_text(encoding="utf-8")
    for name, known in words.items():
        text = text.replace(f"@{name}@", " ".join(known))
    return text.replace("@cases@", "\n".join(cases))


def _fish() -> str:
    values, start = option_values(), "complete -c lightning-cl"
    lines = ["# fish completion for lightning-cl; made by `lightning-cl completion fish`", f"{start} -f"]
    first = (f"-a '{' '.join((*RUNS, *COMMANDS))}'", "-l help", "-l version")
    lines += [f"{start} -n __fish_use_subcommand {what}" for what in first]
    known = {" ".join((*RUNS, "check", *_FOR_FIT)): fit_options()}
    known |= {command: list(own_options(command)) for command in _FOR_FIT}
    for commands, options in known.items():
        for option in dict.fromkeys(options):
            chosen = f" -r -a '{' '.join(values[option])}'" if option in values else ""
            files = " -F" if option in _WITH_FILES else ""
            where = f"-n '__fish_seen_subcommand_from {commands}' -l '{option.removeprefix('--')}'"
            lines.append(f"{start} {where}{chosen}{files}")
    for command in (name for name in values if not name.startswith("-")):
        lines.append(f"{start} -n '__fish_seen_subcommand_from {command}' -a '{' '.join(values[command])}'")
    return "\n".join(lines) + "\n"
