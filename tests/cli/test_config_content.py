"""A file that would hang the parser, or that holds numbers no run can use, is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lightning_cl.cli import main
from lightning_cl.cli.config_content import check_content
from lightning_cl.cli.configs import RECIPES
from lightning_cl.datamodules import Digits

FIT = ("fit", "--config", "digits_finetune")
LAUGHS = "a0: &a0 [x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
CALLBACKS = "`trainer.callbacks` of odd.yaml is a dictionary with"
ODD = [
    ("data: &a\n  batch_size: 3\n  x: *a\n", "odd.yaml, line 3: the alias `*a` stands within what it names"),
    ("trainer: &t\n  callbacks: [*t]\n", "odd.yaml, line 2: the alias `*t` stands within what it names"),
    (LAUGHS, "with its aliases written out it has more than 100000 values"),
    ("data: " + "[" * 3000 + "]" * 3000, "odd.yaml, line 1, has more than 50 lists and dictionaries"),
    ("data: " + "{a: " * 3000 + "1" + "}" * 3000, "odd.yaml, line 1, has more than 50 lists and dictionaries"),
    ("trainer: {callbacks: {FineTuning: {train_mask: all}}}", f"{CALLBACKS} FineTuning; expected a list"),
    ("fit: {trainer: {callbacks: {a: 1, b: 2}}}", f"{CALLBACKS} a, b; expected a list"),
    ("trainer: {callbacks+: {}}", f"{CALLBACKS} nothing; expected a list"),
    ("model: {init_args: {lr: .nan}}", "`model.lr` is nan; expected a finite number"),
    ("model: {init_args: {lr: .inf}}", "`model.lr` is inf; expected a finite number"),
    ("trainer: {gradient_clip_val: .nan}", "`trainer.gradient_clip_val` is nan; expected a finite number"),
    ("seed_everything: -1", "`seed_everything` is -1; expected a whole number from 0 to 4294967295"),
    ("seed_everything: 99999999999999999999", "`seed_everything` is 99999999999999999999; expected a whole number"),
]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(self: Digits) -> None:
        raise AssertionError("the data was opened before the configuration was known to be right")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Digits, "prepare", opened)
    monkeypatch.setattr(Digits, "setup", opened)


@pytest.mark.parametrize(("content", "message"), ODD)
def test_an_odd_file_is_one_sentence(content: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("odd.yaml").write_text(content)
    assert main([*FIT, "--config", "odd.yaml"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len([line for line in said.splitlines() if line.strip()]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.init_args.lr", ".nan"], "`model.lr` is nan"),
        (["--seed_everything", "-1"], "`seed_everything` is -1"),
    ],
)
def test_an_odd_word_is_one_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_passes_as_yaml_and_as_json(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    check_content("a recipe", text)
    check_content("a recipe", json.dumps(yaml.safe_load(text)))


def test_aliases_that_end_and_one_callback_without_a_list_pass() -> None:
    check_content("a config", "a: &a {x: 1}\nb: *a\nc: [*a, *a]\n")
    check_content("a config", "trainer: {callbacks: {class_path: FineTuning}}")
    check_content("a config", "no yaml: [}")
