"""Read the words of ``lightning-cl compare``: which methods, which stream, which seeds. Imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_cl.cli.catalogue import entries
from lightning_cl.cli.configs import RECIPES, UsageError, find_config, part_names, recipe_names, suggestion

FOLDER = "runs/compare"
ALIGNMENTS = ("memory",)
#: Options that compare sets itself, and what to use instead.
_TAKEN = {
    "--seed_everything": "`--seeds`",
    "--data.seed": "`--seeds`",
    "--trainer.logger": "`--folder`, since every run has a folder of its own",
    "--trainer.fast_dev_run": "`--trainer.limit_train_batches 1`, since a fast_dev_run leaves no report",
    "--ckpt_path": "the same command again, which continues what was interrupted",
    "--print_config": "`lightning-cl fit`",
}


@dataclass(frozen=True)
class MethodChoice:
    """A method of the comparison: its name, the configs that make it, words that come behind, and a line about it."""

    name: str
    configs: tuple[str, ...]
    words: tuple[str, ...]
    origin: str


@dataclass(frozen=True)
class Options:
    """The options of a comparison, as they were given."""

    stream: str
    methods: tuple[MethodChoice, ...]
    seeds: tuple[int, ...]
    align: str | None
    folder: Path
    words: tuple[str, ...]
    most_bytes: int | None = None  # that a method may store; its memory fills them


def main(given: argparse.Namespace, rest: Sequence[str], debug: bool) -> int:
    """Run a comparison, or tabulate finished runs; what is wrong with the options is said before torch is imported."""
    options = read_options(given, rest)
    from lightning_cl.cli.comparison import compare, tabulate

    return compare(options, debug) if isinstance(options, Options) else tabulate(*options)


def read_options(given: argparse.Namespace, rest: Sequence[str]) -> Options | tuple[list[Path], Path | None]:
    """The options of a comparison to run, or the folders of one to tabulate and where to write."""
    words = [word for word in (given.target, *rest) if word]
    if given.methods is None and not given.config and words and not words[0].startswith("-"):
        return _folders(words, given), Path(given.folder) if given.folder else None
    for name, value in (("--methods", given.methods is not None), ("--config", given.config)):
        if not value:
            shows = "`lightning-cl list recipes` shows what there is, `compare --help` an example."
            raise UsageError(f"`compare` needs `{name}`; {shows}")
    for option in (word.partition("=")[0].removesuffix("+") for word in words):
        if option in _TAKEN:
            raise UsageError(f"`{option}` is set by `compare`; use {_TAKEN[option]}.")
    if words and not words[0].startswith("-"):
        raise UsageError(f"`{words[0]}` is no option; a config is given as `--config {words[0]}`.")
    if given.align not in (None, *ALIGNMENTS):
        raise UsageError(f"`--align {given.align}` is unknown; give {' or '.join(ALIGNMENTS)}, or leave it out.")
    base, *more = given.config
    methods = tuple(choose(name, base, more) for name in _names(given.methods))
    for place, method in enumerate(methods):
        if method.name in [other.name for other in methods[:place]]:
            raise UsageError(f"two of the `--methods` would both be called `{method.name}`; rename one of the files.")
    stream = "_".join(Path(config).stem for config in given.config)
    folder = Path(given.folder or FOLDER) / stream
    return Options(stream, methods, read_seeds(given.seeds or "3"), given.align, folder, tuple(words))


def _folders(words: Sequence[str], given: argparse.Namespace) -> list[Path]:
    own = [f"--{name}" for name in ("seeds", "align") if getattr(given, name) is not None]
    for word in (*words, *own):
        if word.startswith("-"):
            raise UsageError(f"`{word}` has no meaning for finished runs; give their folders, and `--folder DIR`.")
        if not Path(word).is_dir():
            raise UsageError(
                f"there is no folder `{word}`; give the folders of finished runs, or `--methods A,B --config STREAM`."
            )
    return [Path(word) for word in words]


def read_seeds(text: str) -> tuple[int, ...]:
    """``"3"``: 0, 1, 2; ``"1,3,5"``, or ``"7,"`` for one: these; anything else is refused."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise UsageError(f"`--seeds {text}` is no number; give how many (`--seeds 3`) or which (`--seeds 1,3,5`).")
    seeds = tuple(range(int(parts[0]))) if "," not in text else tuple(int(part) for part in parts)
    if not seeds:
        raise UsageError("`--seeds 0` runs nothing; give at least 1.")
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"`--seeds {text}` has a seed twice; give each once.")
    return seeds


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        what = "is empty" if not any(names) else f"has an empty name (`{text}`)"
        raise UsageError(f"`--methods` {what}; give names with commas between them: `--methods finetune,prototypes`.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"`--methods` names `{twice}` twice; give each once.")
    return names


def choose(name: str, stream: str, more: Sequence[str] = ()) -> MethodChoice:
    """Find a method by its name, all as typed; ``more`` configs win over the method's.

    It is a recipe for the packaged stream, a packaged method, a file, or the name of a callback.
    """
    base = find_config(stream)
    if Path(base).parent == RECIPES:
        streams = part_names("streams")
        near = [s for s in streams if stream.startswith(s)] or streams
        raise UsageError(
            f"`{stream}` is a complete recipe with a method of its own; give the stream alone, {' or '.join(near)}, "
            "and the method with `--methods`."
        )
    behind = tuple(find_config(config) for config in more)
    recipes = recipes_of(stream) if Path(base).parent == RECIPES / "streams" else {}
    if name in recipes:
        recipe = recipes[name]
        return MethodChoice(name, (str(RECIPES / f"{recipe}.yaml"), *behind), (), f"recipe {recipe}")
    with_name = f"{stream} with {name}"
    if name in part_names("methods"):
        return MethodChoice(name, (base, str(RECIPES / "methods" / f"{name}.yaml"), *behind), (), with_name)
    if Path(name).suffix in (".yaml", ".yml", ".json"):
        return MethodChoice(Path(name).stem, (base, find_config(name), *behind), (), with_name)
    callbacks = [entry.name for entry in entries("methods")]
    if name in callbacks or "." in name:
        added = ("--trainer.callbacks+", name)
        return MethodChoice(name.rsplit(".", 1)[-1], (base, *behind), added, f"{stream} with the callback {name}")
    known = sorted({*recipes, *part_names("methods")}) + callbacks
    raise UsageError(f"there is no method `{name}` for `{stream}`; {suggestion(name, known, 'lightning-cl list')}")


def recipes_of(stream: str) -> dict[str, str]:
    """Complete recipes of a packaged stream by method; ``digits_si_blurry_mvp`` is not one of ``digits``."""
    longer = tuple(f"{other}_" for other in part_names("streams") if other.startswith(f"{stream}_"))
    found = [name for name in recipe_names() if name.startswith(f"{stream}_")]
    return {name.removeprefix(f"{stream}_"): name for name in found if not (longer and name.startswith(longer))}
