"""Fills in what pages say of the code: ``<!-- generated: what -->`` becomes text when the site is built."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from docstring_parser import parse

#: Every module whose public names are in the reference.
PUBLIC = (
    "lightning_cl",
    "lightning_cl.callbacks",
    "lightning_cl.datamodules",
    "lightning_cl.lifelong",
    "lightning_cl.metrics",
    "lightning_cl.metrics.functional",
    "lightning_cl.mixins",
    "lightning_cl.models",
    "lightning_cl.nn",
    "lightning_cl.nn.adapters",
    "lightning_cl.nn.attention",
    "lightning_cl.nn.heads",
    "lightning_cl.nn.replay",
    "lightning_cl.reports",
    "lightning_cl.class_embeddings",
    "lightning_cl.training",
)


#: Title of the methods that have no folder of their own.
BASELINE = "only train (the lower reference)"


def public_names(module: str) -> list[str]:
    """What a module exports, documented there and nowhere else."""
    names: list[str] = importlib.import_module(module).__all__
    return [name for name in names if not name.startswith("__")]


def reference(module: str) -> str:
    """A mkdocstrings block for every public name of a module; methods have pages of their own."""
    own_pages = {name for names in methods().values() for name in names} if module.endswith(".callbacks") else set()
    return "\n\n".join(f"::: {module}.{name}" for name in public_names(module) if name not in own_pages)


def definitions(of: str) -> str:
    """A table of the metrics of a report: ``matrix``, ``few_shot`` or ``anytime``."""
    from lightning_cl.metrics.functional import summary
    from lightning_cl.reports import anytime_curve

    tables: dict[str, Mapping[str, str]] = {
        "matrix": summary.DEFINITIONS,
        "few_shot": summary.FEW_SHOT_DEFINITIONS,
        "forget": summary.FORGET_DEFINITIONS,
        "adaptation": summary.ADAPTATION_DEFINITIONS,
        "level": summary.LEVEL_DEFINITIONS,
        "anytime": anytime_curve.DEFINITIONS,
    }
    return table(("Name", "What it is"), [(f"`{name}`", text) for name, text in tables[of].items()])


def checks(_: str) -> str:
    """A table of the checks on a protocol card."""
    from lightning_cl.reports.protocol import CHECKS

    return table(("Check", "What it says when it passes"), list(CHECKS.items()))


def listing(kind: str) -> str:
    """What ``lightning-cl list`` shows of a kind."""
    from lightning_cl.cli.catalogue import entries

    return table(("Name", ""), [(f"`{entry.name}`", entry.summary) for entry in entries(kind)])


def attention(_: str) -> str:
    """A table of the networks that prompts can be put into."""
    from lightning_cl.nn.attention import attention_families

    rows = []
    for family in sorted(attention_families(), key=lambda family: family.name):
        about = (type(family).__doc__ or "").split("\n\n")[0].replace("``", "`")
        rows.append((family.name, "prefixes, tokens" if family.takes_tokens else "prefixes", " ".join(about.split())))
    return table(("Family", "Takes", "How"), rows)


def families(_: str = "") -> str:
    """A table of the methods, one row for each folder of callbacks, each name with a link to its first paper."""
    rows = [(title, ", ".join(map(linked, names))) for title, names in methods().items()]
    return f"{table(('Methods that ...', 'Callbacks'), rows)}\n\n{TOLD}"


#: Says of the mark in the table of methods what a stream of one ordered pass does not tell.
TOLD = (
    "† does something where a task begins or ends, or asks for the task of a sample: in a stream of one ordered pass it"
    "\nis told, with a warning and a note in the report, or refused. All others need no task boundaries;"
    "\na few ask something else of such a stream, and say what."
)


def linked(name: str) -> str:
    """A method's name with a link to its first paper, and a mark if it needs task boundaries."""
    import lightning_cl.callbacks as exported

    paper = re.search(r"arXiv:(\d{4}\.\d{4,5})", getattr(exported, name).__doc__ or "")
    mark = " †" if boundaries(getattr(exported, name)) != "none" else ""
    return f"[`{name}`](https://arxiv.org/abs/{paper[1]}){mark}" if paper else f"`{name}`{mark}"


def boundaries(method: Any) -> str:
    """The task boundaries that a method needs, in words."""
    words = {
        "unused": "none",
        "taken": "told, also in a stream of one ordered pass (the report says so)",
        "needed": "needed; a stream of one ordered pass is refused",
    }
    if method.needs_task_identity:
        return "needed, with the task of every sample"
    if method.stream_kind == "forget":
        return "the stream's requests to forget"
    stated = method.boundaries
    return words[method(**method.small).boundaries if isinstance(stated, property) else stated]


def plain(text: str) -> str:
    """Letters and digits of a name in small letters, to sort by; what is no method family comes last."""
    return ("~" if text == BASELINE else "") + re.sub(r"[^a-z0-9 ]", "", text.lower())


@cache
def methods() -> dict[str, list[str]]:
    """Names of all methods, by the title of their family."""
    import lightning_cl.callbacks as exported

    found: dict[str, list[str]] = {}
    for name in exported.__all__:
        method = getattr(exported, name)
        is_method = isinstance(method, type) and issubclass(method, exported.ContinualMethod)
        if is_method and isinstance(method.state_key, str):  # a base class states none
            package, _, _ = method.__module__.removeprefix("lightning_cl.callbacks.").rpartition(".")
            about = importlib.import_module(f"lightning_cl.callbacks.{package}").__doc__ if package else BASELINE
            title = (about or "").split("\n")[0].rstrip(".").removeprefix("Methods that ")
            found.setdefault(title, []).append(name)
    return {title: sorted(found[title], key=plain) for title in sorted(found, key=plain)}


def method_page(name: str) -> str:
    """The page of a method: what it needs and works on, its recipes and measured numbers, and its docstring."""
    import lightning_cl.callbacks as exported

    method = getattr(exported, name)
    rows = [("Works on", method.backbones()), ("Needs", "; ".join(needs(method)) or "nothing more")]
    rows += [("Task boundaries", boundaries(method)), *started(name)]
    facts = table((f"`{name}`", ""), rows)
    shared = "\n".join(f"- `{name}`: {text}" for name, text in shared_arguments(method).items())
    reference = f"::: lightning_cl.callbacks.{name}\n\nArguments that it shares with others:\n\n{shared}"
    return f"# {name}\n\n{facts}\n\n{reference}\n\n{measured(name)}"


def shared_arguments(method: Any) -> dict[str, str]:
    """What base classes say of arguments that a method's own docstring leaves to them."""
    told = [{p.arg_name: p.description or "" for p in parse(base.__doc__ or "").params} for base in method.__mro__]
    left = [name for name in inspect.signature(method).parameters if name not in told[0]]
    return {name: " ".join(next(some for some in told if name in some)[name].split()) for name in left}


def needs(method: Any) -> list[str]:
    """What a method asks for, from the facts that its class states."""
    asks = {
        "a class head": method.needs_head,
        "automatic optimisation": method.adds_loss or method.needs_automatic,
        "the task of every sample, also at test time (`ContinualDataModule(task_identity=True)`)": (
            method.needs_task_identity
        ),
        "square images": method.needs_images,
        "to be the only method that makes the logits": method.replaces_head,
        "to be the only method that puts parts into the backbone": method.adapts_backbone,
        "to be the only method that shares out the weights": method.owns_weights,
    }
    return [what for what, asked in asks.items() if asked]


def recipes(name: str) -> list[str]:
    """The complete recipes of a method."""
    from lightning_cl.cli.configs import COMPANIONS

    return [
        recipe
        for recipe, named in methods_of_recipes().items()
        if name in named and (name not in COMPANIONS or named <= {*COMPANIONS})
    ]


@cache
def methods_of_recipes() -> dict[str, set[str]]:
    """The methods that every complete recipe names."""
    from lightning_cl.cli.configs import RECIPES

    known = {name for names in methods().values() for name in names}
    paths = sorted(RECIPES.glob("*.yaml"))
    return {path.stem: known & set(re.findall(r"class_path: *(\w+)", path.read_text("utf-8"))) for path in paths}


def claims_of(own: Sequence[str]) -> list[Any]:
    """The entries of the ledger that a recipe measures; text first, since reading all of them takes seconds."""
    from lightning_cl.cli.ledger import LEDGER, read_claim

    texts = {path.stem: path.read_text("utf-8") for path in sorted(LEDGER.glob("*.yaml"))}
    named = [name for name, text in texts.items() if any(recipe in text for recipe in own)]
    return [claim for claim in map(read_claim, named) if set(own) & set(claim.recipe)]


def started(name: str) -> list[tuple[str, str]]:
    """How a method is started from the command line."""
    from lightning_cl.cli.configs import method_files

    part = method_files().get(name, [])
    rows = [("On any stream", ", ".join(f"`lightning-cl fit digits {p}`" for p in part))] if part else []
    found = recipes(name)
    return [*rows, ("Complete runs", ", ".join(f"`{recipe}`" for recipe in found))] if found else rows


def measured(name: str) -> str:
    """What the ledger has of the recipes of a method, and of what puts it on a stream."""
    from lightning_cl.cli.configs import method_files

    rows = []
    for claim in claims_of([*recipes(name), *method_files().get(name, [])]):
        if claim.measured:
            for metric, number in claim.measured.numbers.items():
                spread = "" if number["std"] is None else f" ± {number['std']:.1f}"
                seeds = f"{len(claim.measured.seeds)} seed" + "s" * (len(claim.measured.seeds) > 1)
                rows.append((f"`{claim.name}`", f"`{metric}`", f"{number['mean']:.1f}{spread}", seeds))
    if not rows:
        return "No run of this method has been measured here yet.\n"
    return f"## Measured\n\n{table(('Claim', 'Metric', 'Here', 'Over'), rows)}\n"


def gallery(_: str = "") -> str:
    """The list of all method pages, one section a family."""
    lines = []
    for title, names in methods().items():
        lines += [f"## Methods that {title}", "", *(f"- [{name}]({name}.md): {summary(name)}" for name in names), ""]
    return "\n".join(lines)


def summary(name: str) -> str:
    """The first line of a method's docstring."""
    import lightning_cl.callbacks as exported

    return (getattr(exported, name).__doc__ or "").split("\n")[0].replace("``", "`")


def usage(_: str) -> str:
    """What ``lightning-cl --help`` prints."""
    from lightning_cl.cli.options import build

    return f"```text\n{build().format_help()}```"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in (" | ".join(head), " | ".join("---" for _ in head), *lines))


#: What draws the figures of the gallery, run in the root of the repository when the page is built.
FIGURES = {
    "accuracy_matrix": """\
from lightning_cl.reports import plot_accuracy_matrix, read_report

report = read_report("benchmarks/results/cifar100_sub_coda_prompt_seed0")
figure, _ = plot_accuracy_matrix(report.matrix)
""",
    "accuracy_curves": """\
from lightning_cl.reports import plot_accuracy_curves, read_report

report = read_report("benchmarks/results/caltech95_sub_jpeg_dualprompt_seed0")
figure, _ = plot_accuracy_curves(report.matrix)
""",
    "several_methods": """\
from lightning_cl.metrics.functional import accuracy_per_stage
from lightning_cl.reports import read_report
from lightning_cl.reports.plots import plot_stage_comparison

names = ("finetune", "l2p", "coda_prompt", "prototypes")
reports = {name: read_report(f"benchmarks/results/cifar100_sub_{name}_seed0") for name in names}
figure, _ = plot_stage_comparison({name: accuracy_per_stage(report.matrix) for name, report in reports.items()})
""",
    "at_any_time": """\
from lightning_cl.reports import plot_anytime_comparison

names = ("er", "mvp_r", "mvp", "dualprompt")
figure, _ = plot_anytime_comparison({n: f"benchmarks/results/si_blurry_cifar100_sub_{n}_seed1" for n in names})
""",
    "confusion": """\
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier

from lightning_cl.reports.confusion import plot_confusion

images, labels = load_digits(return_X_y=True)
model = KNeighborsClassifier(1).fit(images[:200], labels[:200])
answers = model.predict(images[200:])
figure, _ = plot_confusion(torch.tensor(confusion_matrix(labels[200:], answers)))
""",
}


def drawn(name: str) -> str:
    """A figure of the gallery, with the program that draws it above."""
    from lightning_cl.reports.drawing import svg_address

    before, made = os.getcwd(), {}
    os.chdir(Path(__file__).resolve().parent.parent)
    try:
        exec(compile(FIGURES[name], name, "exec"), made)
    finally:
        os.chdir(before)
    return f"```python\n{FIGURES[name]}```\n\n![{name.replace('_', ' ')}]({svg_address(made['figure'])})"


def leaderboard(_: str = "") -> str:
    """The measured claims of the ledger, a table with a figure for each stream."""
    from lightning_cl.cli.leaderboard import AXES, boards, markdown
    from lightning_cl.cli.ledger import claim_names, read_claim
    from lightning_cl.reports.leaderboard import figures

    made = boards([read_claim(name) for name in claim_names()])
    return markdown(made, figures(made, AXES))


GENERATORS = {
    "attention": attention,
    "families": families,
    "reference": reference,
    "definitions": definitions,
    "checks": checks,
    "list": listing,
    "usage": usage,
    "gallery": gallery,
    "leaderboard": leaderboard,
    "drawn": drawn,
}


def fill(markdown: str) -> str:
    """The page with every ``<!-- generated: what argument -->`` replaced."""

    def generate(match: re.Match[str]) -> str:
        return GENERATORS[match[1]](match[2].strip())

    return re.sub(r"<!-- generated: (\w+)([^>]*?) -->", generate, markdown)


def fill_readme(markdown: str) -> str:
    """The README with its table of methods as the package has them."""
    return re.sub(
        r"(<!-- methods -->\n).*?(\n<!-- end -->)",
        lambda match: match[1] + families() + match[2],
        markdown,
        flags=re.DOTALL,
    )


def on_config(config: Any) -> Any:
    """Called by mkdocs first: put a page for each method into the navigation."""
    pages = [{title: [{name: f"methods/{name}.md"} for name in names]} for title, names in methods().items()]
    place = next(place for place, entry in enumerate(config.nav) if "Methods" in entry)
    config.nav[place] = {"Methods": ["methods/index.md", *pages]}
    return config


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs for the list of all files: add a page for each method."""
    from mkdocs.structure.files import File

    for name in (name for names in methods().values() for name in names):
        files.append(File.generated(config, f"methods/{name}.md", content=method_page(name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    from lightning_cl.cli.catalogue import without_roles

    return without_roles(fill(markdown))


if __name__ == "__main__":  # after a method was added: python docs/hooks.py
    import sys

    root = Path(__file__).resolve().parent.parent
    sys.path.insert(0, str(root))  # its own package, not one that is installed
    page = root / "README.md"
    page.write_text(fill_readme(page.read_text("utf-8")), "utf-8")
