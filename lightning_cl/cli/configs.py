"""Find what ``--config NAME`` names: packaged recipes by name, files by path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from itertools import takewhile
from pathlib import Path

from lightning_cl.cli.config_content import check_content

PACKAGE = Path(__file__).resolve().parents[1]
RECIPES = PACKAGE / "recipes"
_OPTIONS = ("--config", "-c")
PARTS = ("streams", "methods")
#: Beside another method they are a part of it.
COMPANIONS = ("FineTuning", "ExperienceReplay")
#: Other names of recipes and methods: the family of names is that of the callback.
ALIASES = {
    "experience_replay": "er",
    "replay": "er",
    "digits_experience_replay": "digits_replay",
    "digits_er": "digits_replay",
    "fine_tuning": "finetune",
    "finetuning": "finetune",
    "digits_fine_tuning": "digits_finetune",
    "digits_finetuning": "digits_finetune",
}


class UsageError(Exception):
    """A command line that cannot be run; the message says what was given, what was expected and what to do."""


def suggestion(given: str, known: Sequence[str], listing: str | None = None) -> str:
    """``did you mean A, B?``, and the command that shows all."""
    by_lower = {name.lower(): name for name in known}
    near = [by_lower[name] for name in get_close_matches(given.lower(), list(by_lower), n=3, cutoff=0.5)]
    sentences = [f"did you mean {', '.join(near)}?"] if near else []
    return " ".join([*sentences, f"`{listing}` shows all."] if listing else sentences)


@contextmanager
def _written(path: Path, option: str) -> Iterator[None]:
    """With the folders above a file; what hinders that it is written is said with the option that names it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); give another file with `{option}`.") from error


def write_output(path: Path, text: str, option: str) -> None:
    """Write a file that the user asked for, and the folders above it; what hinders is said with the option."""
    with _written(path, option):
        path.write_text(text, encoding="utf-8")


def require_output(path: Path, option: str) -> None:
    """Refuse a file that cannot be written, before its content is made; a file that is there stays as it is.

    Raises:
        UsageError: With the path, what hinders, and the option that gives another one.
    """
    with _written(path, option):
        there = path.exists()
        path.open("a", encoding="utf-8").close()
        if not there:
            path.unlink()  # a command that ends in an error leaves no empty file


def require_writable(folder: Path, instead: str) -> None:
    """Refuse a folder that cannot be made or written; ``instead`` gives another one on the command line."""
    whole = folder.absolute()
    there = next(path for path in (whole, *whole.parents) if os.path.exists(path))  # raises nothing, as Path does
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    why = "you may not write there" if there.is_dir() else f"{there} is a file"
    raise UsageError(f"nothing can be written to `{folder}`: {why}; give another folder with {instead}.")


def recipe_names() -> list[str]:
    """Names of the packaged recipes that are complete."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def part_names(kind: str) -> list[str]:
    """Names of the packaged parts of recipes: ``"streams"``, or ``"methods"`` to put on a stream."""
    return sorted(path.stem for path in (RECIPES / kind).glob("*.yaml"))


def packaged(name: str) -> Path | None:
    """Path of a packaged recipe, stream or method, by its name, another name of it, or the class of a method."""
    name = ALIASES.get(name, name)
    name = next(iter(method_files().get(name, ())), name) if name[:1].isupper() else name
    paths = (RECIPES / f"{name}.yaml", *(RECIPES / kind / f"{name}.yaml" for kind in PARTS))
    return next((path for path in paths if path.is_file()), None)


@cache
def method_files() -> dict[str, list[str]]:
    """Names of the packaged methods to put on a stream, by the class of their method: the plainest one first."""
    found: dict[str, list[str]] = {}
    for name in sorted(part_names("methods"), key=lambda name: (name.count("_"), name)):
        classes = re.findall(r"class_path: *(\w+)", (RECIPES / "methods" / f"{name}.yaml").read_text("utf-8"))
        main = [name for name in classes if name not in COMPANIONS] or classes
        found.setdefault(main[-1], []).append(name)
    return found


def find_config(given: str) -> str:
    """Path of a file, or of the packaged recipe of that name; configs typed in place (``{...}``) stay as they are."""
    if "\n" in given or given.lstrip().startswith("{"):
        _check("the config", given)
        return given
    path = Path(given)
    if path.is_file():
        try:
            _check(str(path), path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            of_run = "; a checkpoint goes to `--ckpt_path`, and `check` takes the folder of its run"
            hint = of_run if path.suffix == ".ckpt" else ""
            raise UsageError(f"`{path}` is no configuration, for it is not text{hint}; give a YAML file.") from None
        return given
    if len(path.parts) == 1 and (found := packaged(given)) is not None:
        return str(found)
    what = "file" if path.suffix in (".yaml", ".yml", ".json") or len(path.parts) > 1 else "recipe"
    known = [*recipe_names(), *(name for kind in PARTS for name in part_names(kind))]
    hint = suggestion(path.stem, known, "lightning-cl list recipes")
    raise UsageError(f"there is no {what} `{given}`; {hint} A file is given by its path: `--config my_run.yaml`.")


def _check(name: str, text: str) -> None:
    try:
        check_content(name, text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def named_configs(arguments: Sequence[str]) -> list[str]:
    """``fit NAME`` and ``fit STREAM METHOD`` with the ``--config`` before each name that they leave out."""
    command, *words = arguments
    names = list(takewhile(lambda word: not word.startswith("-"), words))
    return [command, *(word for name in names for word in ("--config", name)), *words[len(names) :]]


def resolve_configs(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command line with every config replaced by its path, and those paths in order.

    A packaged stream with packaged methods runs under all of their names: ``digits`` and ``coda_prompt`` in
    ``runs/digits_coda_prompt``.
    """
    resolved: list[str] = []
    paths: list[str] = []
    words, last = iter(arguments), 0
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
        last = len(resolved)
    folders = [Path(path).parent for path in paths if "\n" not in path]
    composed = len(folders) == len(paths) > 1 and set(folders[1:]) == {RECIPES / "methods"}
    if composed and folders[0] == RECIPES / "streams":
        resolved.insert(last, f"--trainer.logger.init_args.name={'_'.join(Path(path).stem for path in paths)}")
    return resolved, paths
