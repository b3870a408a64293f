"""Completion in real shells: what a user gets at the tabulator key, and that no option is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_cl.cli import main
from lightning_cl.cli.catalogue import entries
from lightning_cl.cli.command import run
from lightning_cl.cli.commands import COMMANDS as OTHERS
from lightning_cl.cli.commands import RUNS, SHELLS
from lightning_cl.cli.completion import fit_options, option_values, own_options, script
from lightning_cl.cli.configs import RECIPES

COMMANDS = (*RUNS, *OTHERS)

ASK = """
source {script}
compopt() {{ :; }}
COMP_WORDS=({words})
COMP_CWORD={place}
_lightning_cl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "lightning-cl"
    path.write_text(script("bash"))
    return path


def completed(path: Path, folder: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words, as bash splits them."""
    typed = " ".join(f"'{word}'" for word in ("lightning-cl", *words))
    code = ASK.format(script=path, words=typed, place=len(words))
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=folder, check=True)
    assert not done.stderr
    return set(done.stdout.split())


def test_bash_completes_commands_names_and_options(bash_script: Path, tmp_path: Path) -> None:
    (tmp_path / "my_own.yaml").touch()

    def offered(*words: str) -> set[str]:
        return completed(bash_script, tmp_path, *words)

    assert offered("f") == {"fit"}
    assert offered("") == {*COMMANDS, "--help", "--version"}
    assert offered("fit", "--config", "digits_coda") == {"digits_coda_prompt"}
    assert offered("fit", "--config", "my_") == {"my_own.yaml"}
    assert offered("fit", "--config", "=", "digits_coda") == {"digits_coda_prompt"}  # bash splits at the sign
    assert {"digits", "coda_prompt", "my_own.yaml"} <= offered("fit", "--config", "=")
    assert offered("fit", "-c", "digits", "-c", "coda") == {"coda_prompt"}
    assert offered("fit", "--data.sou") == {"--data.source"}
    assert offered("fit", "--data.source", "CIF") == {"CIFAR10", "CIFAR100"}
    assert offered("fit", "--data.scenario", "Si") == {"SiBlurry"}
    assert offered("fit", "--trainer.callbacks+", "RunC") == {"RunCost"}
    assert offered("fit", "--model.lr_s") == {"--model.lr_schedule"}
    assert offered("fit", "--config", "digits", "--trainer.dev") == {"--trainer.devices"}
    assert offered("list", "sc") == {"scenarios"}
    assert offered("check", "digits_ov") == {"digits_ovor"}
    assert offered("completion", "") == set(SHELLS)
    assert offered("bench", "si_") == {"si_blurry"}
    assert offered("bench", "digits", "--pa") == {"--page", "--param"}
    assert offered("compare", "--al") == {"--align"}
    assert offered("compare", "--align", "") == {"memory"}
    assert offered("compare", "--methods", "finetune,protot") == {"finetune,prototypes"}
    assert offered("sweep", "digits_l2p", "--tuning") == {"--tuning-seeds", "--tuning-fraction"}
    assert offered("sweep", "digits_l2p", "--tune-on", "") == {"order", "classes"}
    assert offered("sweep", "digits_l2p", "--data.sou") == {"--data.source"}
    assert not {"--align", "--tune-on"} & offered("fit", "--")


def test_every_name_is_completed(bash_script: Path, tmp_path: Path) -> None:
    assert completed(bash_script, tmp_path, "fit", "--config", "") == {path.stem for path in RECIPES.rglob("*.yaml")}
    methods = completed(bash_script, tmp_path, "compare", "--methods", "")
    assert {entry.name for entry in entries("methods")} <= methods


def test_every_option_of_the_parser_is_completed(capsys: pytest.CaptureFixture[str]) -> None:
    """Options are read from source text; the real parser is the reference."""
    assert run(["fit", "--help"], debug=False) == 0
    found = set(re.findall(r"^  (?:-\w, )?(--[\w.]+?)(?:\.help)?\+?(?=[ ,\[\n])", capsys.readouterr().out, flags=re.M))
    assert {"--trainer.max_epochs", "--data.source", "--ckpt_path"} <= found
    assert found - set(fit_options()) == set()


def test_values_are_those_of_their_options() -> None:
    values = option_values()
    known = {*fit_options(), *own_options("sweep"), *own_options("compare")}
    assert {option for option in values if option.startswith("--")} <= known
    assert {command for command in values if not command.startswith("-")} <= set(COMMANDS)
    assert all(values.values())


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_accept_their_script(shell: str, tmp_path: Path) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_text(script(shell))
    subprocess.run([found, "-n", str(path)], check=True)


def test_fish_completes() -> None:
    found = shutil.which("fish")
    if found is None:
        pytest.skip("fish is not installed")

    def offered(line: str) -> set[str]:
        code = script("fish") + f"complete -C '{line}'\n"
        done = subprocess.run([found, "--no-config", "-c", code], capture_output=True, text=True, check=True)
        return {row.split("\t")[0] for row in done.stdout.splitlines()}

    assert offered("lightning-cl f") >= {"fit"}
    assert "digits_coda_prompt" in offered("lightning-cl fit --config digits_co")
    assert offered("lightning-cl fit --data.sou") == {"--data.source"}
    assert offered("lightning-cl list sc") == {"scenarios"}


def test_no_torch_and_a_clear_message(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from lightning_cl.cli import main;"
        "assert main(['completion', 'zsh']) == main(['compare', '--help']) == main(['completion', '--help']) == 0;"
        "assert main(['compare', '--methods', 'x', '--config', 'digits']) == 2;"
        "assert not {'torch', 'lightning', 'timm', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert main(["completion"]) == 2
    assert "needs one shell: bash, zsh, fish" in capsys.readouterr().err
    assert main(["completion", "bsh"]) == 2
    assert "no completion for `bsh`; give bash, zsh or fish" in capsys.readouterr().err
