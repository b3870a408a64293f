"""Run ``lightning-cl predict MODEL_DIR IMAGES...``: classes and probabilities as a table, CSV or JSON lines."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cl.cli.configs import UsageError
from lightning_cl.cli.lessons import said_to_user

if TYPE_CHECKING:
    from lightning_cl.lifelong import Predictions
    from lightning_cl.lifelong.prediction import Batch


def main(options: argparse.Namespace, rest: Sequence[str], debug: bool) -> int:
    """Predict and print; 0."""
    paths = given_paths(rest, sys.stdin.read if "-" in rest else lambda: "")
    if not paths:
        raise UsageError("`predict` needs images; give files, folders, or `-` for paths on standard input.")
    return said_to_user(lambda: _run(options, paths), debug)


def given_paths(words: Sequence[str], read: object) -> list[str]:
    """The paths among the words, and for ``-`` those that ``read`` gives, one in a line."""
    found = list[str]()
    for word in words:
        lines = read().splitlines() if word == "-" and callable(read) else [word]
        found += [line for line in lines if line.strip()]
    return found


def _run(options: argparse.Namespace, paths: Sequence[str]) -> int:
    from lightning_cl.lifelong import load
    from lightning_cl.lifelong.prediction import image_paths

    model = load(options.target, options.version)
    files = image_paths(paths)
    count = math.ceil(len(files) / options.batch_size)
    found = model.predict(files, options.batch_size, progress=lambda batches: _with_bar(batches, count))
    text = WRITERS[options.format](found, options.top)
    if options.output is None:
        print(text, end="")
    else:
        options.output.write_text(text, encoding="utf-8")
    return 0


def _with_bar(batches: Iterable[Batch], count: int) -> Iterable[Batch]:
    """A progress bar on the error stream of a terminal, for more than one batch."""
    if count < 2 or not sys.stderr.isatty():
        return batches
    from rich.console import Console
    from rich.progress import track

    return track(batches, "Predicting", total=count, console=Console(stderr=True))


def as_table(predictions: Predictions, top: int) -> str:
    """Lines of image, class and probability, then the next classes."""
    rows = list(zip(predictions.images, predictions.top(top), strict=True))
    width = max(len(image) for image in predictions.images)
    lines = [
        f"{image:<{width}}  " + "  ".join(f"{name} {100 * probability:.1f} %" for name, probability in best)
        for image, best in rows
    ]
    return "\n".join(lines) + "\n"


def as_csv(predictions: Predictions, top: int) -> str:
    """A header, then image, class and the probability of every class."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["image", "class", *predictions.class_names])
    rows = zip(predictions.images, predictions.labels, predictions.probabilities.tolist(), strict=True)
    writer.writerows([image, label, *(f"{p:.6f}" for p in row)] for image, label, row in rows)
    return stream.getvalue()


def as_json_lines(predictions: Predictions, top: int) -> str:
    """An object for each image: ``image``, ``class``, and the probabilities of the most probable classes by name."""
    rows = zip(predictions.images, predictions.labels, predictions.top(top), strict=True)
    entries = ({"image": image, "class": label, "probabilities": dict(best)} for image, label, best in rows)
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


WRITERS = {"table": as_table, "csv": as_csv, "jsonl": as_json_lines}


def is_folder_call(words: Sequence[str]) -> bool:
    """Whether ``predict`` is asked for a model folder; with options first it is the run of a configuration."""
    return not words or not words[0].startswith("-") or words[0] in ("-h", "--help") or Path(words[0]).is_dir()
