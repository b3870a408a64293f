"""What an import and a command load, counted in modules: a start that was fast stays fast."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: Of an import of the package alone, and of the command as far as its help: not counting what Python itself loads.
MOST_ALONE, MOST_OF_HELP = 10, 120
#: What a fit needs beside torch, timm and lightning: the parser of the command line.
PARSER = {"docstring_parser", "jsonargparse", "typeshed_client"}


def loaded(code: str) -> list[str]:
    """Modules that the code loads in a fresh process, beyond those it began with."""
    script = (
        f"import json, sys; before = set(sys.modules)\n{code}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    return modules


def test_the_package_alone_loads_next_to_nothing() -> None:
    modules = loaded("import lightning_cl")
    assert len(modules) <= MOST_ALONE, modules
    assert [name for name in modules if name.startswith("lightning_cl")] == ["lightning_cl"]


def test_help_loads_the_parser_of_the_words_alone() -> None:
    modules = loaded("from lightning_cl.cli import main; main(['--help']); main(['fit', '--help'])")
    assert len(modules) <= MOST_OF_HELP, len(modules)
    others = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    assert {name for name in others if not name.startswith("_")} <= {"cython_runtime", "lightning_cl", "yaml"}


@pytest.mark.slow
def test_a_fit_loads_no_package_that_torch_timm_and_lightning_do_not() -> None:
    code = (
        "import lightning, timm, torch; base = set(sys.modules)\n"
        "import lightning_cl.callbacks, lightning_cl.cli.command, lightning_cl.datamodules, lightning_cl.models\n"
        "before |= base"
    )
    packages = {name.partition(".")[0] for name in loaded(code)} - sys.stdlib_module_names
    assert packages - {"lightning_cl", "lightning"} <= PARSER
