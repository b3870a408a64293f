"""Classes are known by their names: which of new data are known already, and what renaming and merging make of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence


def canonical(name: str) -> str:
    """The name without what nobody sees or means: letter case and the Unicode form of composed letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_names(known: Sequence[str], given: Sequence[str], where: str) -> None:
    """Refuse names that a reader would take for one and the same.

    Args:
        known: Names of the classes that the model has.
        given: Names of the classes in the data, each once.
        where: The data, for the message.

    Raises:
        ValueError: If two names differ only by letter case or Unicode form.
    """
    by_form = {canonical(name): name for name in known}
    for name in given:
        other = by_form.setdefault(canonical(name), name)
        if other != name:
            owner = "the model's" if other in known else "its own"
            raise ValueError(
                f"the class {_spelt(name)} in {where} differs from {owner} class {_spelt(other)} only by letter case "
                "or Unicode form; rename one of the two folders, or say that they are one with "
                f"`rename={{{name!r}: {other!r}}}` "
                f"(`--rename '{name}={other}'`)."
            )


def _spelt(name: str) -> str:
    """The name, and its letters where they can be told apart by their codes only."""
    return repr(name) if name.isascii() else f"{name!r} ({name!a})"


def renamed(given: Sequence[str], rename: Mapping[str, str], known: Sequence[str], where: str) -> list[str]:
    """Names of the classes in the data, after ``rename`` and checked against the model's.

    Args:
        given: As the data has them.
        rename: New name by name in the data.
        known: Names of the classes that the model has.
        where: The data, for messages.

    Raises:
        ValueError: If a class to rename is not there, two would get one name, or names differ only in form.
    """
    missing = sorted(set(rename) - set(given))
    if missing:
        raise ValueError(f"{where} has no class {missing[0]!r} to rename; it has {few(given)}.")
    names = [rename.get(name, name) for name in given]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"two classes of {where} would be called {twice[0]!r} after renaming; put their images into one folder."
        )
    check_names(known, names, where)
    return names


def renamed_class(known: Sequence[str], old: str, new: str) -> list[str]:
    """The model's names with ``old`` called ``new``.

    Raises:
        ValueError: If there is no ``old``, or there is a ``new`` already.
    """
    if old not in known:
        raise ValueError(f"the model has no class {old!r} to rename; it has {few(known)}.")
    others = [name for name in known if name != old]
    taken = next((name for name in others if canonical(name) == canonical(new)), None)
    if taken is not None:
        raise ValueError(
            f"the model has a class {taken!r} already; to make one class of {old!r} and it, merge them "
            f"(`--merge '{old}={taken}'`)."
        )
    return [new if name == old else name for name in known]


def few(names: Sequence[str], most: int = 8) -> str:
    """Some names for a message."""
    shown = ", ".join(map(repr, list(names)[:most]))
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
