"""The words of ``lightning-cl compare``: which methods, which stream, which seeds. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_cl.cli_support.catalogue import RECIPES, entries
from lightning_cl.cli_support.configs import UsageError, find_config, part_names, recipe_names, suggestion

FOLDER = "runs/compare"
ALIGNMENTS = ("memory",)
HELP = """\
usage: lightning-cl compare --methods A,B,... --config STREAM [--seeds 3] [options as for `fit`]
       lightning-cl compare RUN_DIR... [--folder DIR]

Runs methods on one stream, one after the other, each in a process of its own, and shows what they reach and what they
cost in one table: accuracy, forgetting, time, images through the network, parameters, stored bytes, latency.

  --methods A,B,...    packaged methods (`lightning-cl list recipes`; the recipe STREAM_METHOD is used where there is
                       one, else the method is put on the stream), paths of YAML files, or names of callbacks
                       (`lightning-cl list methods`, or full class paths)
  --config STREAM      a packaged stream or the path of a YAML file; what further --config say wins over the methods
  --seeds 3            seeds 0, 1, 2 for `seed_everything` and `data.seed` (the default); `--seeds 1,3,5` gives them
  --align memory       equal stored bytes: memories of replay grow until all store as much as the largest
  --folder DIR         where runs and tables go; runs/compare by default
  --trainer.max_time 00:01:00:00, --data.batch_size 32, ...
                       any value of the config by its dotted name, for all runs
  RUN_DIR              folders of finished runs, or of a comparison: only the table is made

Runs lie in DIR/STREAM/METHOD/seed0, with their configuration in run.yaml and what they print in output.txt. The same
command again reuses finished runs and continues interrupted ones; a run of another configuration is kept as seed0-1.
Tables: comparison.md, comparison.csv, runs.csv and comparison.png in DIR/STREAM.

exit code: 0 all runs have a result, 1 some failed, 2 nothing can be compared, 130 interrupted
"""
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
    """What was asked for."""

    stream: str
    methods: tuple[MethodChoice, ...]
    seeds: tuple[int, ...]
    align: str | None
    folder: Path
    words: tuple[str, ...]


def read_options(arguments: Sequence[str]) -> Options | tuple[list[Path], Path | None]:
    """The options of a comparison to run, or the folders of one to tabulate and where to write.

    Raises:
        UsageError: If something is missing, unknown or given twice.
    """
    own, configs, words = _sort(arguments)
    if "--methods" not in own and not configs and words and not words[0].startswith("-"):
        return _folders(words, own)
    for name, instead in (("--methods", "lightning-cl list recipes"), ("--config", "lightning-cl list recipes")):
        if name not in own and not (name == "--config" and configs):
            raise UsageError(f"`compare` needs `{name}`; `{instead}` shows what there is, `compare --help` an example.")
    for word in words:
        option = word.partition("=")[0]
        taken = next((name for name in _TAKEN if option in (name, f"{name}+")), None)
        if taken is not None:
            raise UsageError(f"`{taken}` is set by `compare`; use {_TAKEN[taken]}.")
    if words and not words[0].startswith("-"):
        raise UsageError(f"`{words[0]}` is no option; a config is given as `--config {words[0]}`.")
    align = own.get("--align")
    if align is not None and align not in ALIGNMENTS:
        raise UsageError(f"`--align {align}` is unknown; give {' or '.join(ALIGNMENTS)}, or leave it out.")
    base, *more = configs
    methods = tuple(choose(name, base, more) for name in _names(own["--methods"]))
    for place, method in enumerate(methods):
        if method.name in [other.name for other in methods[:place]]:
            raise UsageError(f"two of the `--methods` would both be called `{method.name}`; rename one of the files.")
    stream = "_".join(Path(config).stem for config in configs)
    folder = Path(own.get("--folder", FOLDER)) / stream
    return Options(stream, methods, read_seeds(own.get("--seeds", "3")), align, folder, tuple(words))


def _sort(arguments: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """The options of compare itself, the configs, and all other words."""
    own: dict[str, str] = {}
    configs: list[str] = []
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in ("--methods", "--seeds", "--align", "--folder", "--config", "-c"):
            others.append(word)
            continue
        if not equals:
            value = next(words, "")
        if name in own:
            raise UsageError(f"`{name}` is given twice; give it once.")
        if not value and name != "--methods":
            raise UsageError(f"`{name}` needs a value; see `lightning-cl compare --help`.")
        if name in ("--config", "-c"):
            configs.append(value)
        else:
            own[name] = value
    return own, configs, others


def _folders(words: Sequence[str], own: dict[str, str]) -> tuple[list[Path], Path | None]:
    for word in words:
        if word.startswith("-"):
            raise UsageError(f"`{word}` has no meaning for finished runs; give their folders, and `--folder DIR`.")
        if not Path(word).is_dir():
            raise UsageError(
                f"there is no folder `{word}`; give the folders of finished runs, or `--methods A,B --config STREAM`."
            )
    for name in set(own) - {"--folder"}:
        raise UsageError(f"`{name}` has no meaning for finished runs; give their folders, and `--folder DIR`.")
    return [Path(word) for word in words], Path(own["--folder"]) if "--folder" in own else None


def read_seeds(text: str) -> tuple[int, ...]:
    """``"3"``: 0, 1, 2; ``"1,3,5"``, or ``"7,"`` for one: these.

    Raises:
        UsageError: If these are no whole numbers from 0, none, or one twice.
    """
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
    """Find a method: a recipe for the packaged stream, a packaged method, a file, or the name of a callback.

    Args:
        name: As typed.
        stream: The first config, as typed.
        more: Further configs, which win over the method's.

    Raises:
        UsageError: If there is no such stream or method.
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
    packaged = Path(base).parent == RECIPES / "streams"
    recipes = _recipes_of(stream) if packaged else {}
    if name in recipes:
        recipe = recipes[name]
        return MethodChoice(name, (str(RECIPES / f"{recipe}.yaml"), *behind), (), f"recipe {recipe}")
    if name in part_names("methods"):
        return MethodChoice(
            name, (base, str(RECIPES / "methods" / f"{name}.yaml"), *behind), (), f"{stream} with {name}"
        )
    if Path(name).suffix in (".yaml", ".yml", ".json"):
        return MethodChoice(Path(name).stem, (base, find_config(name), *behind), (), f"{stream} with {name}")
    callbacks = [entry.name for entry in entries("methods")]
    if name in callbacks or "." in name:
        short = name.rsplit(".", 1)[-1]
        return MethodChoice(
            short, (base, *behind), ("--trainer.callbacks+", name), f"{stream} with the callback {name}"
        )
    known = sorted({*recipes, *part_names("methods")}) + callbacks
    raise UsageError(f"there is no method `{name}` for `{stream}`; {suggestion(name, known, 'lightning-cl list')}")


def _recipes_of(stream: str) -> dict[str, str]:
    """Complete recipes of a packaged stream by method; ``digits_si_blurry_mvp`` is not one of ``digits``."""
    longer = tuple(f"{other}_" for other in part_names("streams") if other.startswith(f"{stream}_"))
    found = [name for name in recipe_names() if name.startswith(f"{stream}_")]
    return {name.removeprefix(f"{stream}_"): name for name in found if not (longer and name.startswith(longer))}
