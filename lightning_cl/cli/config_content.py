"""Refuses a configuration that would hang or break the parser, before anything reads it; imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

#: Levels of lists and dictionaries within each other, and values with every alias written out.
MOST_LEVELS, MOST_VALUES = 50, 100_000
_LARGEST_SEED = 2**32 - 1  # NumPy's


def check_content(name: str, text: str) -> None:
    """Check that a configuration is small when it is written out, and its callbacks a list.

    What is no YAML passes: the parser says where.

    Args:
        name: What to call it in an error.
        text: YAML.

    Raises:
        ValueError: Naming the line.
    """
    try:
        _check_size(name, text)
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return
    sections = [content, *content.values()] if isinstance(content, Mapping) else []  # `fit: {trainer: ...}`, too
    for section in sections:
        trainer = section.get("trainer") if isinstance(section, Mapping) else None
        given = trainer.get("callbacks", trainer.get("callbacks+")) if isinstance(trainer, Mapping) else None
        if isinstance(given, Mapping) and "class_path" not in given:
            raise ValueError(
                f"`trainer.callbacks` of {name} is a dictionary with {', '.join(map(str, given)) or 'nothing'}; "
                "expected a list: `callbacks: [{class_path: CODAPrompt, init_args: {prompt_length: 8}}]`."
            )


def _check_size(name: str, text: str) -> None:
    """Follow the file event by event, which takes as long as the file is, whatever its aliases stand for."""
    sizes: dict[str, int] = {}  # of what an anchor stands for
    open_levels: list[tuple[str | None, int]] = []  # anchor, and values before it
    values = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1
        values += isinstance(event, yaml.NodeEvent)
        if isinstance(event, yaml.CollectionStartEvent):
            open_levels.append((event.anchor, values))
            if len(open_levels) > MOST_LEVELS:
                raise ValueError(
                    f"{name}, line {line}, has more than {MOST_LEVELS} lists and dictionaries within each other, and "
                    "no setting has; write it flat."
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_levels.pop()
            sizes[anchor or ""] = values - before
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_levels):
                raise ValueError(
                    f"{name}, line {line}: the alias `*{event.anchor}` stands within what it names, which has no end; "
                    "write the values out."
                )
            values += sizes.get(event.anchor, 0)
        if values > MOST_VALUES:
            raise ValueError(
                f"{name}, line {line}: with its aliases written out it has more than {MOST_VALUES} values."
            )


def check_values(config: Mapping[str, Any]) -> None:
    """Check the numbers of a parsed configuration: the seed within its range, and none that is not a number.

    Raises:
        ValueError: Naming the setting.
    """
    seed = config.get("seed_everything")
    if isinstance(seed, int) and not isinstance(seed, bool) and not 0 <= seed <= _LARGEST_SEED:
        raise ValueError(f"`seed_everything` is {seed}; expected a whole number from 0 to {_LARGEST_SEED}.")
    for name, value in _values(config):
        if math.isnan(value) or (math.isinf(value) and name.rpartition(".")[2] == "lr"):
            raise ValueError(f"`{name}` is {value}; expected a finite number.")


def _values(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every float of a configuration, with its short path."""
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, Mapping) or hasattr(value, "as_dict"):
        for name, within in (value if isinstance(value, Mapping) else vars(value)).items():
            yield from _values(within, path if name == "init_args" else f"{path}.{name}".lstrip("."))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for place, within in enumerate(value):
            yield from _values(within, f"{path}.{place}")
