"""What a release is made of says the same everywhere: version, dependencies, workflows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

import lightning_cl

ROOT = Path(__file__).resolve().parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
RECIPE = (ROOT / "conda.recipe" / "meta.yaml").read_text(encoding="utf-8")
#: Names at conda-forge that differ, and what jsonargparse's extra needs there by name.
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base", "open_clip_torch": "open-clip-torch"}


def test_one_version() -> None:
    version = lightning_cl.__version__
    assert re.search(r'^version = "(.+)"$', PROJECT, re.MULTILINE)[1] == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert f'version = "{version}"' in RECIPE
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_the_conda_recipe_has_the_dependencies() -> None:
    import tomllib

    wanted = {}
    for line in tomllib.loads(PROJECT)["project"]["dependencies"]:
        name, bound = re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line).groups()
        wanted[CONDA.get(name, name)] = bound
    run = RECIPE.split("  run:\n")[1].split("\ntest:")[0]
    found = dict(re.findall(r"- ([\w-]+) >=([\d.]+)", run))
    assert {name: found[name] for name in wanted} == wanted
    assert set(found) - set(wanted) == {"python", "docstring_parser"}


def test_workflows_and_templates_are_read() -> None:
    paths = [*(ROOT / ".github").rglob("*.yml")]
    assert len(paths) >= 6
    for path in paths:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.parent.name == "workflows":
            steps = [step for job in content["jobs"].values() for step in job["steps"]]
            assert all("uses" in step or "run" in step for step in steps)
    tests = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    assert {"run": ".ci/run"} in tests["jobs"]["all"]["steps"]


def test_every_file_of_the_package_that_is_no_python_is_in_the_wheel() -> None:
    """Of those that git knows, so that nothing is left out of a release unseen."""
    from fnmatch import fnmatch

    patterns = re.findall(r'"([^"]+)"', re.search(r"^lightning_cl = \[(.*)\]$", PROJECT, re.MULTILINE)[1])
    package = ROOT / "lightning_cl"
    files = [p for p in package.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    left_out = [p for p in files if not any(fnmatch(p.relative_to(package).as_posix(), g) for g in patterns)]
    assert left_out == []
    assert sum(p.stat().st_size for p in package.rglob("*") if p.is_file() and p.suffix != ".pyc") < 12_000_000
