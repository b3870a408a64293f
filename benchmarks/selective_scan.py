"""The selective scan in plain PyTorch, relative to a GRU of the same width, on 49 and 196 tokens.

    python benchmarks/selective_scan.py

A scan is a whole block (projections, coefficients, recurrence with 16 states a channel, gate). In every round both run
in turn, each of them first in every other round, alone and with their backward pass; figures are medians over the
rounds of the processor time of one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn

from lightning_cl.nn.selective_scan import SelectiveBlock

WIDTHS, TOKENS = (64, 192), (49, 196)


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(width: int, tokens: int, batch: int, rounds: int) -> dict[str, float]:
    """Medians over the rounds of the scan's time over the GRU's in the same round, forward and with backward."""
    torch.manual_seed(0)
    x = torch.randn(batch, tokens, width)
    block, gru = SelectiveBlock(width), nn.GRU(width, width, batch_first=True)

    def forward(kind: str) -> torch.Tensor:
        return block(x).tokens if kind == "scan" else gru(x)[0]

    def alone(kind: str) -> None:
        with torch.no_grad():
            forward(kind)

    def learning(kind: str) -> None:
        module = block if kind == "scan" else gru
        torch.autograd.grad(forward(kind).square().sum(), list(module.parameters()))

    found = {"forward": [], "with backward": []}
    for step in range(rounds + 1):
        for name, call in (("forward", alone), ("with backward", learning)):
            order = ("scan", "gru") if step % 2 else ("gru", "scan")
            taken = {kind: seconds(lambda call=call, kind=kind: call(kind)) for kind in order}
            if step:  # the first round warms up
                found[name].append(taken["scan"] / taken["gru"])
    return {name: round(median(ratios), 2) for name, ratios in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/selective_scan.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    ratios = {f"width {w}, {t} tokens": compare(w, t, args.batch_size, args.rounds) for w in WIDTHS for t in TOKENS}
    report = {"machine": platform.processor() or platform.machine(), "batch": args.batch_size, "scan over GRU": ratios}
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
