"""``--config NAME``: packaged recipes by name, files by path."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from lightning_cl.cli_support.catalogue import RECIPES

_OPTIONS = ("--config", "-c")


class UsageError(Exception):
    """A command line that cannot be run; the message says what was given, what was expected and what to do."""


def suggestion(given: str, known: Sequence[str], listing: str | None = None) -> str:
    """``did you mean A, B?``, and the command that shows all."""
    by_lower = {name.lower(): name for name in known}
    near = [by_lower[name] for name in get_close_matches(given.lower(), list(by_lower), n=3, cutoff=0.5)]
    sentences = [f"did you mean {', '.join(near)}?"] if near else []
    return " ".join([*sentences, f"`{listing}` shows all."] if listing else sentences)


def recipe_names() -> list[str]:
    """Names of the packaged recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_config(given: str) -> str:
    """Path of a file, or of the packaged recipe of that name; configs typed in place (``{...}``) stay as they are.

    Raises:
        UsageError: If there is neither.
    """
    if "\n" in given or given.lstrip().startswith("{") or Path(given).is_file():
        return given
    if given in recipe_names():
        return str(RECIPES / f"{given}.yaml")
    path = Path(given)
    what = "file" if path.suffix in (".yaml", ".yml", ".json") or len(path.parts) > 1 else "recipe"
    hint = suggestion(path.stem, recipe_names(), "lightning-cl list recipes")
    raise UsageError(f"there is no {what} `{given}`; {hint} A file is given by its path: `--config my_run.yaml`.")


def resolve_configs(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command line with every config replaced by its path, and those paths in order.

    Raises:
        UsageError: If a config is neither a file nor a recipe, or ``--config`` is the last word.
    """
    resolved: list[str] = []
    paths: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in _OPTIONS:
            resolved.append(word)
            continue
        if not equals:
            value = next(words, "")
        if not value:
            raise UsageError(f"`{name}` needs the name of a recipe or the path of a file.")
        paths.append(find_config(value))
        resolved += ["--config", paths[-1]]
    return resolved, paths
