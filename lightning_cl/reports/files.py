"""Writing results so that they are never half there and never silently replaced."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_cl.leftovers import REPORT, clear_report_leftovers, mark


def jsonable(value: Any) -> Any:
    """``value`` in the types of strict JSON: NaN becomes null, an infinity ``"Infinity"`` or ``"-Infinity"``.

    Tensors become lists, mappings get string keys, paths and dtypes their text; of any other object only its class is
    named, since its text may hold an address that differs from run to run.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Tensor):
        return jsonable(value.detach().cpu().tolist())
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((jsonable(item) for item in value), key=repr)
    if isinstance(value, (list, tuple, range)):
        return [jsonable(item) for item in value]
    if isinstance(value, os.PathLike) or type(value).__module__ == "torch":  # dtypes, devices
        return str(value)
    kind = value if isinstance(value, type) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def to_json(value: Any) -> str:
    """Strict JSON text (RFC 8259), one number to a place: rows of numbers stay on one line."""
    text = json.dumps(jsonable(value), indent=2, allow_nan=False, ensure_ascii=False)
    # only what json.dumps broke into lines: a string never holds a line break, it is escaped
    flat = re.compile(r"\[\n\s*((?:-?[\d.eE+-]+|null)(?:,\n\s*(?:-?[\d.eE+-]+|null))*)\n\s*\]")
    return flat.sub(lambda row: "[" + re.sub(r"\s+", " ", row.group(1)) + "]", text) + "\n"


def to_csv(rows: Iterable[Iterable[Any]], line_end: str = "\r\n") -> str:
    """CSV text (RFC 4180); None and NaN are empty cells."""
    stream = io.StringIO(newline="")
    cells = (["" if value is None or value != value else value for value in row] for row in rows)
    csv.writer(stream, lineterminator=line_end).writerows(cells)
    return stream.getvalue()


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, line ends as they are."""
    path.write_bytes(text.encode("utf-8"))


def write_files(
    directory: Path, writers: Mapping[str, Callable[[Path], None]], family: Sequence[str], keep_previous: bool
) -> None:
    """Write all files, each at a temporary name first, then put them in place together.

    Args:
        directory: Made if missing.
        writers: File name to a function that writes that file at the path it is given. The last is put in place last.
        family: All names that a set of these files can have: what is there of an earlier set goes, also where this set
            has no such file.
        keep_previous: Rename what goes to ``name-N.suffix``, one new ``N`` for all of it. False deletes it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # beside the final files, on the same disk: a rename is then atomic
    clear_report_leftovers(directory)
    with tempfile.TemporaryDirectory(dir=directory, prefix=f"{REPORT}{mark()}-") as folder:
        for name, write in writers.items():
            write(Path(folder) / name)
        if keep_previous:
            _number_previous(directory, family)
        for name in set(family) - set(writers):
            (directory / name).unlink(missing_ok=True)
        for name in writers:
            os.replace(Path(folder) / name, directory / name)


def _number_previous(directory: Path, names: Sequence[str]) -> None:
    """Rename the files of ``names`` in ``directory`` to the lowest number that none of their predecessors reached."""
    stems = "|".join(re.escape(Path(name).stem) for name in names)
    taken = [re.fullmatch(rf"(?:{stems})-(\d+)\.\w+", file.name) for file in directory.iterdir()]
    number = 1 + max((int(match.group(1)) for match in taken if match), default=0)
    for name in names:
        old = directory / name
        if old.exists():
            os.replace(old, old.with_name(f"{old.stem}-{number}{old.suffix}"))
