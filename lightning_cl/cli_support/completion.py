"""``lightning-cl completion SHELL``: a script with which a shell completes commands, names and options.

The script is made from source text alone, as the listings are, so it is there at once; it completes without starting
Python, and is made anew after an update.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from lightning_cl.cli_support.catalogue import FOR_AUTHORS, KINDS, PACKAGE, entries, exported
from lightning_cl.cli_support.comparing_options import ALIGNMENTS
from lightning_cl.cli_support.configs import UsageError, part_names
from lightning_cl.cli_support.sweeping_options import option_choices

SHELLS = ("bash", "zsh", "fish")
HELP = """\
usage: lightning-cl completion bash|zsh|fish

Prints a script that completes commands, recipes, methods, classes and options. To have it in every shell:

  bash   lightning-cl completion bash > ~/.local/share/bash-completion/completions/lightning-cl
  zsh    lightning-cl completion zsh > DIR/_lightning-cl    (DIR is in $fpath, before compinit is called)
  fish   lightning-cl completion fish > ~/.config/fish/completions/lightning-cl.fish
"""
#: Options that run on what ``fit`` gets, besides those of its classes.
_COMMON = ("--config", "--help", "--print_config", "--debug", "--seed_everything", "--num_threads", "--model", "--data")
_COMPARE = ("--methods", "--seeds", "--align", "--folder")
#: What a Trainer's ``fit`` is given by the command itself.
_GIVEN = ("self", "model", "train_dataloaders", "val_dataloaders", "datamodule")


def script(words: Sequence[str], commands: Sequence[str], runs: Sequence[str]) -> str:
    """The script for a shell, or how to use it.

    Args:
        words: The words after ``completion``.
        commands: All commands.
        runs: Those that take the options of ``fit``.

    Raises:
        UsageError: If the shell is unknown or missing.
    """
    if any(word in ("-h", "--help") for word in words):
        return HELP
    if len(words) != 1:
        raise UsageError(f"`completion` needs one shell: {', '.join(SHELLS)}.")
    if words[0] not in SHELLS:
        raise UsageError(f"there is no completion for `{words[0]}`; give {', '.join(SHELLS[:-1])} or {SHELLS[-1]}.")
    options, values = fit_options(), option_values()
    if words[0] == "fish":
        return _fish(commands, runs, options, values)
    text = _bash(commands, options, values)
    return text if words[0] == "bash" else f"#compdef lightning-cl\nautoload -U +X bashcompinit && bashcompinit\n{text}"


# ---------------------------------------------------------------------- what there is to complete


def fit_options() -> list[str]:
    """Every option of the runs, but for the arguments of classes that a configuration names."""
    lightning = find_spec("lightning")  # finds it, and imports nothing
    assert lightning is not None
    assert lightning.submodule_search_locations is not None
    trainer = Path(lightning.submodule_search_locations[0], "pytorch", "trainer", "trainer.py")
    found = [*_COMMON, "--trainer", "--trainer.callbacks+"]
    found += [f"--trainer.{name}" for name in arguments(trainer, "Trainer", "__init__")]
    found += [f"--{name}" for name in arguments(trainer, "Trainer", "fit") if name not in _GIVEN]
    module = PACKAGE / "datamodules" / "datamodule.py"
    found += [f"--data.{name}" for name in arguments(module, "ContinualDataModule", "__init__")]
    model = PACKAGE / "models" / "image_classifier.py"
    return found + [f"--model.{name}" for name in arguments(model, "ImageClassifier", "__init__")]


def arguments(path: Path, owner: str, method: str) -> list[str]:
    """Names of a method's arguments in a source file, without ``self``."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == owner:
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == method:
                    return [argument.arg for argument in (*item.args.args, *item.args.kwonlyargs)][1:]
    return []


def option_values() -> dict[str, list[str]]:
    """What may follow an option (or a command), for those where that is a list of names."""
    recipes = [entry.name for entry in entries("recipes")]
    methods = [entry.name for entry in entries("methods")]
    callbacks = sorted(exported(PACKAGE / "callbacks" / "__init__.py") - FOR_AUTHORS)
    return {
        "--config": recipes,
        "-c": recipes,
        "--methods": [*part_names("methods"), *methods],
        "--align": list(ALIGNMENTS),
        **{option: choices for option, choices in option_choices().items() if choices},
        "--data.source": [entry.name for entry in entries("sources")],
        "--data.scenario": [entry.name for entry in entries("scenarios")],
        "--model": sorted(exported(PACKAGE / "models" / "__init__.py")),
        "--trainer.callbacks+": callbacks,
        "--trainer.callbacks": callbacks,
        "--ckpt_path": ["last"],
        "check": recipes,
        "sweep": recipes,
        "list": list(KINDS),
        "completion": list(SHELLS),
    }


# ---------------------------------------------------------------------- scripts

_WITH_FILES = ("--config", "-c", "--methods", "--ckpt_path", "--folder", "--out", "check", "compare", "sweep")
_BASH = """\
# bash completion for lightning-cl; made by `lightning-cl completion bash`
_lightning_cl() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} names="" files="" before=""
    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "{commands} --help --version" -- "$cur"))
        return
    fi
    if [[ $cur == "=" ]]; then
        cur=""
    elif [[ $prev == "=" ]]; then
        prev=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    case $prev in
{cases}
        *)
            case ${{COMP_WORDS[1]}} in
                compare) names="{compare} {options}" ;;
                sweep) names="{sweep} {options}" ;;
                list | completion | reproduce) ;;
                *) names="{options}" ;;
            esac
            [[ $cur == -* ]] || files=yes
            ;;
    esac
    if [[ $prev == --methods && $cur == *,* ]]; then
        before=${{cur%,*}},
        cur=${{cur##*,}}
        files=""
    fi
    COMPREPLY=($(compgen -P "$before" -W "$names" -- "$cur"))
    if [[ -n $files ]]; then
        COMPREPLY+=($(compgen -f -- "$cur"))
        compopt -o filenames 2> /dev/null
    fi
    return 0
}}
complete -F _lightning_cl lightning-cl
"""


def _bash(commands: Sequence[str], options: Sequence[str], values: Mapping[str, Sequence[str]]) -> str:
    cases = []
    for name in dict.fromkeys((*values, *_WITH_FILES)):
        files = " files=yes" if name in _WITH_FILES else ""
        # a command has values only in its own place: --data.source may be called `list`
        guard = "" if name.startswith("-") else "[[ $COMP_CWORD -eq 2 ]] && "
        chosen = f'names="{" ".join(values.get(name, ()))}"'
        if name == "compare":
            chosen = f'names="{" ".join(_COMPARE)} --config"'
        cases.append(f"        {name}) {guard}{chosen}{files and ' &&' + files if guard else files} ;;")
    words = {"commands": commands, "compare": _COMPARE, "sweep": option_choices(), "options": options}
    return _BASH.format(cases="\n".join(cases), **{name: " ".join(given) for name, given in words.items()})


def _fish(
    commands: Sequence[str], runs: Sequence[str], options: Sequence[str], values: Mapping[str, Sequence[str]]
) -> str:
    lines = [
        "# fish completion for lightning-cl; made by `lightning-cl completion fish`",
        "complete -c lightning-cl -f",
        f"complete -c lightning-cl -n __fish_use_subcommand -a '{' '.join(commands)}'",
        "complete -c lightning-cl -n __fish_use_subcommand -l help",
        "complete -c lightning-cl -n __fish_use_subcommand -l version",
    ]
    running = f"__fish_seen_subcommand_from {' '.join((*runs, 'check', 'compare', 'sweep'))}"
    for option in dict.fromkeys(options):
        lines.append(_fish_option(running, option, values))
    for command, own in (("compare", _COMPARE), ("sweep", option_choices())):
        lines += [_fish_option(f"__fish_seen_subcommand_from {command}", option, values) for option in own]
    for command in values:
        if not command.startswith("-"):
            wanted = f"__fish_seen_subcommand_from {command}"
            lines.append(f"complete -c lightning-cl -n '{wanted}' -a '{' '.join(values[command])}'")
    return "\n".join(lines) + "\n"


def _fish_option(condition: str, option: str, values: Mapping[str, Sequence[str]]) -> str:
    files = " -F" if option in _WITH_FILES else ""
    chosen = f" -r -a '{' '.join(values[option])}'" if option in values else ""
    return f"complete -c lightning-cl -n '{condition}' -l '{option.removeprefix('--')}'{chosen}{files}"
