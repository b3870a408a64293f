"""A report with everything in it, and what a page of it says by cell."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import torch

from lightning_cl.reports import ContinualReport, ProtocolCard
from lightning_cl.reports.protocol import Check

NAN = float("nan")
ACC = torch.tensor([[0.80, NAN, NAN], [0.90, 0.805, NAN], [0.60, 0.84, 0.85]], dtype=torch.float64)


def make_report(**changes: Any) -> ContinualReport:
    checks = (
        Check("batch size", "pass", "8 samples one by one"),
        Check("labels", "fail", "", "the labels decide", {}, (0,), (0,)),
    )
    values: dict[str, Any] = {
        "class_il": ACC,
        "task_il": ACC.clamp(max=0.95) + 0.05,
        "sizes": torch.tensor([20, 20, 20]),
        "task_classes": [[0, 1], [2, 3], [4, 5]],
        "class_names": ["cat", "<b>dog</b>", "cow & calf", "d", "e", "f"],
        "samples_seen": [100, 100, 100],
        "stream_hash": "ab" * 32,
        "methods": {"EWC<u>": {"strength": 400.0, "note": "<script>alert(1)</script>"}},
        "notes": ['a note with "quotes" & <tags>'],
        "protocol": ProtocolCard(checks).to_dict(),
    }
    return ContinualReport(**{**values, **changes})


def anytime() -> dict[str, Any]:
    curve = {
        "samples_seen": [50, 100, 150],
        "periodic": [True, True, True],
        "accuracy": [0.5, None, 0.25],
        "exposed_classes": [2, 2, 4],
    }
    return {
        "curve": curve, "task_accuracy": [[0.5], [None], [0.2]], "task_ends": [100, 200, 300],
        "metrics": {"a_auc": 0.375, "windowed_forgetting_10": 0.125},
        "definitions": {"a_auc": "mean of the periodic ones", "windowed_forgetting": "largest drop in a window"},
    }  # fmt: skip


class Page(HTMLParser):
    """Text by cell, and every address."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.rows, self.addresses, self.tags = list[str](), list[list[str]](), list[str](), list[str]()
        self.kinds: list[str] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]
        if tag == "table":
            self.kinds.append(dict(attrs).get("class") or "")
        if tag == "tr":
            self.rows.append([])
            self.kind = self.kinds[-1]
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if any(tag in ("td", "th") for tag in self.open):
            self.rows[-1][-1] += data
