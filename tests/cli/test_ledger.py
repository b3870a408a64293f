"""The ledger: every entry is well formed, covers what the recipes say, and is compared and written as it should be."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.cli import ledger, main
from lightning_cl.cli.configs import RECIPES, UsageError, part_names, recipe_names
from lightning_cl.cli.ledger import LEDGER, NOT_RUN, Claim, claim_names, markdown, read_claim, recipe_hash, status
from lightning_cl.metrics.functional.summary import (
    ADAPTATION_DEFINITIONS,
    DEFINITIONS,
    FEW_SHOT_DEFINITIONS,
    FORGET_DEFINITIONS,
    LEVEL_DEFINITIONS,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "ledger.md"
ACCURACY = "class_il/average_accuracy"
SHORT = ["--data.epochs_per_task", "1", "--trainer.check_val_every_n_epoch", "1", "--trainer.limit_train_batches", "1"]
SHORT += ["--data.batch_size", "2", "--trainer.enable_progress_bar", "false"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the ledger that a test may write to; runs go beside it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(LEDGER, tmp_path / "ledger")
    return tmp_path / "ledger"


def edit(folder: Path, name: str, **values: object) -> None:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}, sort_keys=False))


# ---------------------------------------------------------------------- the entries there are


@pytest.mark.parametrize("name", claim_names())
def test_an_entry_is_well_formed(name: str) -> None:
    claim = read_claim(name)
    assert claim.to_yaml() == (LEDGER / f"{name}.yaml").read_text(encoding="utf-8")  # so --update changes nothing else
    assert claim.seeds
    assert all(path in (*recipe_names(), *part_names("streams"), *part_names("methods")) for path in claim.recipe)
    known = {f"{space}/{metric}" for space in ("class_il", "task_il") for metric in DEFINITIONS}
    if claim.recipe:
        known |= {"anytime/a_auc", "anytime/a_last", *(f"few_shot/{metric}" for metric in FEW_SHOT_DEFINITIONS)}
        known |= {f"forget/{metric}" for metric in FORGET_DEFINITIONS}
        known |= {f"level_{level}/{metric}" for level in range(2) for metric in LEVEL_DEFINITIONS}
        known |= {f"adaptation/{metric}" for metric in ADAPTATION_DEFINITIONS}
        assert set(claim.numbers) <= known
    for metric, number in claim.numbers.items():
        if claim.unit == "percent" and number.published is not None:
            assert 0 <= number.published <= 100, metric
        if number.spread is not None:  # a tolerance below what the source itself scatters would be a lie
            assert number.tolerance >= number.spread
    if claim.measured is not None:
        assert set(claim.measured.numbers) == set(claim.numbers)
        assert (claim.measured.recipe_hash is None) == (not claim.recipe)


@cache
def claims() -> list[Claim]:
    return [read_claim(name) for name in claim_names()]


def claims_of(recipe: str) -> list[Claim]:
    return [claim for claim in claims() if claim.recipe == (recipe,)]


def head(recipe: str) -> str:
    """The comment lines before the configuration, as one line."""
    text = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8").split("seed_everything:")[0]
    return " ".join(line.lstrip("# ") for line in text.splitlines())


def test_every_recipe_that_names_a_number_has_an_entry() -> None:
    said = {r for r in recipe_names() if re.search(r"(Paper|Measured)\b.{0,90}?\d+\.\d", head(r))}
    assert len(said) >= 20  # or the search has gone blind
    assert not [recipe for recipe in sorted(said) if not claims_of(recipe)]


@pytest.mark.parametrize("recipe", recipe_names())
def test_headers_and_entries_say_the_same(recipe: str) -> None:
    """A published number is in the header, too; "Not run here yet" and a measurement exclude each other."""
    for claim in claims_of(recipe):
        for number in claim.numbers.values():
            if number.published is not None:
                assert re.search(rf"\b{number.published:.2f}\b|\b{number.published:g}\b", head(recipe)), claim.name
        if claim.measured is not None and not claim.stale and claim.measured.version in ("0.1.0", "0.2.0"):
            assert "Not run here yet" not in head(recipe)
        if found := re.search(r"Measured: [^%]*?(\d+\.\d) %", head(recipe)):
            assert claim.measured is not None, "the header has a measured number that the ledger does not have"
            first = next(iter(claim.numbers))
            assert abs(claim.measured.numbers[first]["mean"] - float(found[1])) <= claim.numbers[first].tolerance


RUNS = sorted(path.parent for path in (ROOT / "benchmarks" / "results").glob("*_seed*/continual_report.json"))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_what_a_benchmark_measured_is_in_the_ledger(run: Path) -> None:
    """Otherwise: ``python benchmarks/enter.py``."""
    name, seed = run.name.rsplit("_seed", 1)
    claim = read_claim(name if name in claim_names() else f"real_images_{name}")
    assert claim.measured is not None
    report = json.loads((run / "continual_report.json").read_text(encoding="utf-8"))
    for metric, numbers in claim.measured.numbers.items():
        space, short = metric.split("/")
        value = report["anytime"]["metrics"][short] if space == "anytime" else report["metrics"][metric]
        assert numbers["values"][claim.measured.seeds.index(int(seed))] == pytest.approx(100 * value, abs=6e-4)


def test_tables_of_the_page_of_numbers_are_of_the_ledger() -> None:
    """Every number with one decimal in its tables of results is a mean or a standard deviation of some claim."""
    text = (ROOT / "docs" / "numbers.md").read_text(encoding="utf-8").split("## Speed")[0]
    said = re.findall(r"\b\d+\.\d\b", "".join(re.findall(r"^\|.*\|$", text, re.MULTILINE)))
    found = [values for claim in claims() if claim.measured for values in claim.measured.numbers.values()]
    known = [values[key] for values in found for key in ("mean", "std") if values[key] is not None]
    assert len(said) > 50
    assert [n for n in said if not any(abs(float(n) - value) < 0.0501 for value in known)] == []


def test_the_page_is_what_the_entries_make() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown([read_claim(name) for name in claim_names()])


def test_the_page_tells_what_was_not_run() -> None:
    page = markdown([read_claim("cifar100_coda_prompt"), read_claim("digits_prototypes")])
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows[0].endswith(
        f"| `{ACCURACY}` | 86.25 ± 0.74 (arXiv:2211.13218, CIFAR-100, 10 tasks) |  |  | {NOT_RUN} |"
    )
    assert "2 claims, 1 of them measured, 1 not yet run" in page


# ---------------------------------------------------------------------- staleness


def test_a_changed_recipe_makes_its_entry_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (RECIPES / "digits_prototypes.yaml").read_text(encoding="utf-8")
    path = tmp_path / "digits_prototypes.yaml"
    monkeypatch.setattr(ledger, "packaged", lambda name: path)
    claim = read_claim("digits_prototypes")
    path.write_text(text)
    claim = replace(claim, measured=replace(claim.measured, recipe_hash=recipe_hash(claim.recipe)))
    assert not claim.stale

    same = [text.replace("# Nearest", "# The nearest"), text.replace("save_dir: runs", "save_dir: elsewhere")]
    same.append("\n".join(line for line in text.splitlines() if "ContinualCheckpoint" not in line))
    same.append(text.replace("num_sanity_val_steps: 0", "num_sanity_val_steps: 2"))
    for unchanged in same:
        assert unchanged != text
        path.write_text(unchanged)
        assert not claim.stale

    config = yaml.safe_load(text)
    for key, value in {"batch_size": 7, "epochs_per_task": 9}.items():
        path.write_text(yaml.safe_dump({**config, "data": {**config["data"], key: value}}))
        assert claim.stale
        assert status(claim) == "measured, stale"
        assert status(claim) in markdown([claim])
    path.write_text(text)
    assert replace(claim, overrides=("--data.batch_size", "7")).stale


def test_measured_entries_of_recipes_are_not_stale() -> None:
    assert [name for name in claim_names() if read_claim(name).stale] == []


# ---------------------------------------------------------------------- comparing


@given(st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_summary_is_the_statistics_module_rounded(values: list[float]) -> None:
    found = ledger.summary(values)
    assert found["mean"] == pytest.approx(sum(values) / len(values), abs=1e-3)
    assert found["std"] == pytest.approx(statistics.variance(values) ** 0.5, abs=1e-3)


@pytest.mark.parametrize(("mean", "near"), [(86.25, True), (87.25, True), (85.25, True), (87.26, False), (0.0, False)])
def test_the_verdict_is_about_what_was_published(mean: float, near: bool) -> None:
    claim = read_claim("cifar100_coda_prompt")
    claim = replace(claim, numbers={ACCURACY: ledger.Number(86.25, 0.74, 1.0)})
    assert ledger.verdict(claim, {ACCURACY: mean}) == {ACCURACY: near}
    measured = ledger.Measurement((0,), {ACCURACY: ledger.summary([mean])}, "0.1.0", "here", 1.0, None)
    assert status(replace(claim, measured=measured)) == ("reproduced" if near else "not reproduced")


def test_without_a_published_number_the_one_before_counts() -> None:
    claim = read_claim("digits_prototypes")
    assert claim.reference(ACCURACY) == claim.measured.numbers[ACCURACY]["mean"]
    assert ledger.verdict(replace(claim, measured=None), {ACCURACY: 1.0}) == {ACCURACY: None}


# ---------------------------------------------------------------------- the command


def test_a_claim_runs_cut_short(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reproduce", "digits_prototypes", "--ledger", str(folder), "--seeds", "1,0", *SHORT]
    before = (folder / "digits_prototypes.yaml").read_text()
    assert main(words) == 1  # two images a task are not the claim
    printed = capsys.readouterr().out
    assert "OUTSIDE the tolerance of 1." in printed
    assert "The run was not the claim's" in printed
    assert "The claim is over the seeds 0, 1, 2." in printed
    entry = yaml.safe_load(printed[printed.index("\nclaim:") :])
    assert entry["measured"]["seeds"] == [1, 0]
    assert len(entry["measured"]["numbers"][ACCURACY]["values"]) == 2
    assert (folder / "digits_prototypes.yaml").read_text() == before
    assert {path.name for path in Path("runs/reproduce/digits_prototypes").iterdir()} == {"seed_0", "seed_1"}


def test_update_writes_the_entry_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lightning_cl.cli import reproduction

    claim = read_claim("digits_prototypes")
    fresh = ledger.Measurement((0, 1, 2), {ACCURACY: ledger.summary([85.0, 86.0, 87.0])}, "9", "h", 1.0, "x")
    monkeypatch.setattr(reproduction, "measure", lambda *_: fresh)
    assert main(["reproduce", "digits_prototypes", "--ledger", str(folder), "--update"]) == 1
    assert "OUTSIDE" in capsys.readouterr().out
    written = read_claim("digits_prototypes", folder)
    assert written == replace(claim, measured=fresh)
    assert written.stale
    others = [path for path in folder.iterdir() if path.stem != "digits_prototypes"]
    assert all(path.read_text() == (LEDGER / path.name).read_text() for path in others)


@pytest.mark.slow
def test_a_claim_in_full(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "digits_prototypes", "--ledger", str(folder), "--update"]) == 0, capsys.readouterr().out
    claim = read_claim("digits_prototypes", folder)
    assert not claim.stale
    assert claim.measured.seeds == (0, 1, 2)
    assert claim.measured.numbers[ACCURACY]["mean"] == pytest.approx(96.1, abs=1.0)


def test_listing_and_page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["reproduce", "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in claim_names())
    assert main(["reproduce", "--markdown"]) == 0
    assert capsys.readouterr().out == markdown([read_claim(name) for name in claim_names()])
    assert main(["--help"]) == 0
    assert "reproduce NAME" in capsys.readouterr().out


BAD = {
    "no such claim": (
        ["digit_prototypes"],
        "the ledger has no claim `digit_prototypes`; did you mean digits_prototypes",
    ),
    "no name": (["--update"], "needs the name of a claim"),
    "update of another run": (["digits_prototypes", "--update", "--data.batch_size", "8"], "changes the run"),
    "seeds": (["digits_prototypes", "--seeds", "0,a"], "`--seeds 0,a` must be different whole numbers"),
    "the same seed twice": (["digits_prototypes", "--seeds", "1,1"], "must be different"),
    "a benchmark": (["speed_stream"], "was measured by a benchmark of the repository"),
    "no folder": (["x", "--ledger", "nowhere"], "`--ledger nowhere` is not a folder"),
    "no report": (["digits_prototypes", "--seeds", "0", *SHORT, "--trainer.logger", "false"], "nothing to compare"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_reproduced_is_said(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = BAD[case]
    assert main(["reproduce", *words]) == 2
    assert message in capsys.readouterr().err


BROKEN = {
    "unit": ({"unit": "points"}, "expected one of percent, ratio"),
    "nothing to run": ({"recipe": []}, "either a `recipe` or a `command`"),
    "a word for a list": ({"recipe": "digits"}, r"write a list, `recipe: \[digits\]`"),
    "no source": ({"source": None}, "without a `source`"),
    "unknown key": ({"extra": 1}, "unknown: extra"),
    "no tolerance": (
        {"numbers": {ACCURACY: {"published": 1.0, "spread": None, "tolerance": 0}}},
        "no tolerance above 0",
    ),
    "foreign number": (
        {
            "measured": {
                "seeds": [0],
                "numbers": {"a": {}},
                "version": "",
                "hardware": "",
                "minutes": 1,
                "recipe_hash": "",
            }
        },
        "that it does not claim",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_entry_is_refused(case: str, folder: Path) -> None:
    values, message = BROKEN[case]
    edit(folder, "cifar100_coda_prompt", **values)
    with pytest.raises(UsageError, match=message):
        read_claim("cifar100_coda_prompt", folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in claim_names() if read_claim(name).overrides])
def test_overrides_are_options_of_the_recipe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    claim = read_claim(name)
    configs = [word for recipe in claim.recipe for word in ("--config", recipe)]
    assert main(["fit", *configs, *claim.overrides, "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    if name.endswith("_2000"):
        replay = [c for c in config["trainer"]["callbacks"] if c["class_path"].endswith("ExperienceReplay")]
        assert [entry["init_args"]["memory_size"] for entry in replay] == [2000]
    elif "_tasks" in name:
        assert f"{config['data']['scenario']['init_args']['num_tasks']}_tasks" in name
