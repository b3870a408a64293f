"""What stands in fenced blocks of the documentation, by the names that comments in front of them give, made short."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import sklearn.datasets
from sklearn.utils import Bunch

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def blocks(page: Path, kind: str, language: str) -> dict[str, str]:
    """``{name: code}`` of the fenced blocks that follow ``<!-- kind: name -->``."""
    pattern = rf"<!-- {kind}: ([\w-]+) -->\n```{language}\n(.*?)^```$"
    return dict(re.findall(pattern, page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))


def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first 200 of scikit-learn's digits, of all classes, in the place of all of them: a whole run is short."""
    data = sklearn.datasets.load_digits()
    few = Bunch(data=data.data[:200], images=data.images[:200], target=data.target[:200])
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: few)


def few_sentences(data: Path, folder: Path) -> None:
    """Four sentences of each of six intents of CLINC150, in the place of all of them."""
    whole = json.loads((data / "text" / "clinc150_full.json").read_text(encoding="utf-8"))
    few = {}
    for split in ("train", "test"):
        intents = sorted({intent for _, intent in whole[split]})[:6]
        of_each = [[pair for pair in whole[split] if pair[1] == intent][:4] for intent in intents]
        few[split] = [pair for pairs in of_each for pair in pairs]
    (folder / "clinc150_full.json").write_text(json.dumps(few), encoding="utf-8")


def documented_module(page: str, name: str, folder: Path) -> ModuleType:
    """The module that a page shows, written to ``folder`` and imported under its name."""
    path = folder / f"{name}.py"
    path.write_text(blocks(DOCS / page, "method", "python")[name], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
