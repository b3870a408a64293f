"""The commands' own options: what is theirs, what goes on to `fit`, and help that is there at once."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import lightning_cl
from lightning_cl.cli import main
from lightning_cl.cli.commands import COMMANDS, RUNS
from lightning_cl.cli.completion import fit_options
from lightning_cl.cli.options import parse


def test_words_of_fit_go_on_in_order() -> None:
    words = ["--data.batch_size", "8", "--seeds", "0,1", "--trainer.callbacks+=RunCost", "--model.lr", "-1"]
    given, rest = parse(["reproduce", "digits_l2p", *words])
    assert (given.target, given.seeds) == ("digits_l2p", "0,1")
    assert rest == ["--data.batch_size", "8", "--trainer.callbacks+=RunCost", "--model.lr", "-1"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_value_of_an_option_of_fit_is_no_target(command: str) -> None:
    given, rest = parse([command, "--data.batch_size", "8"])
    assert (given.target, rest) == ("", ["--data.batch_size", "8"])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_of_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: lightning-cl {command} ")
    assert f"\n\nexample:\n  lightning-cl {command} " in printed
    assert all(name in printed for names, *_ in COMMANDS[command].options for name in names.split())
    assert max(map(len, printed.splitlines())) <= 120


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n    {command} " in printed for command in (*RUNS, *COMMANDS))
    assert printed.index("example:\n  lightning-cl fit digits_coda_prompt\n") < printed.index("commands:")


@pytest.mark.parametrize("run", [run for run in RUNS if run not in COMMANDS])
def test_help_of_a_run_is_short_and_lists_no_internals(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([run, "--help"]) == 0
    printed = capsys.readouterr().out
    start = f"usage: lightning-cl {run} NAME... [options]\n\nexample:\n  lightning-cl {run} digits_coda_prompt"
    assert printed.startswith(start)
    assert printed.count("\n") < 100
    assert max(map(len, printed.splitlines())) <= 120
    options = {name.removeprefix("--") for name in fit_options() if not name.startswith("--trainer.")}
    known = {"config", "help", "model", "data", "weights_only", "trainer"}
    assert [name for name in sorted(options - known) if name not in printed and run == "fit"] == []
    assert [name for name in ("max_steps", "gradient_clip_val", "precision") if name not in printed] == []
    assert not re.search("InterruptNotice|TaskLoop|RunConfig|`:|:class:", printed)
    assert main([run]) == 2
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "--folder", "a", "--folder", "b"], "`--folder` is given twice; give it once."),
        (
            ["report", "a", "--output"],
            "argument --output/-o: expected one argument; `lightning-cl report --help` shows",
        ),
        (["list", "recipes", "--all"], "`list` has no option `--all`; see `lightning-cl list --help`."),
        (["sweep", "digits_l2p", "--method", "best"], "invalid choice: 'best'"),
    ],
)
def test_wrong_options_are_one_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("lightning-cl: ")
    assert said.count("\n") == 1


def test_python_runs_the_package() -> None:
    code = (
        "import runpy, sys; sys.argv = ['x', '--version'];"
        "codes = []\n"
        "for name in ('lightning_cl', 'lightning_cl.cli'):\n"
        "    try: runpy.run_module(name, run_name='__main__')\n"
        "    except SystemExit as stop: codes.append(stop.code)\n"
        "assert codes == [0, 0]; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 2 * f"lightning-cl {lightning_cl.__version__}\n"
