"""Run ``lightning-cl export MODEL_DIR``: a graph or the weights as one file for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lightning_cl.cli.configs import UsageError
from lightning_cl.cli.lessons import said_to_user


def main(options: argparse.Namespace, rest: Sequence[str], debug: bool) -> int:
    """Export and say where; 0."""
    if rest:
        raise UsageError(f"`export` takes one model folder, but was given {rest[0]!r} too.")
    return said_to_user(lambda: _run(options), debug)


def _run(options: argparse.Namespace) -> int:
    from lightning_cl.lifelong import load

    model = load(options.target, options.version)
    path = model.export(options.output or Path(options.target) / "model", options.format)
    print(f"Exported version {model.version} with {len(model.class_names)} classes: {path}")
    return 0
