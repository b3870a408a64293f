"""Claims of one stream are ranked in one table, and `lightning-cl bench` measures, enters and ranks."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_cl.cli import main, tuned_methods
from lightning_cl.cli.bench import Budget, Tuning, read_budget
from lightning_cl.cli.bench_runs import over_budget, ranked
from lightning_cl.cli.comparison_options import MethodChoice
from lightning_cl.cli.configs import UsageError
from lightning_cl.cli.leaderboard import AXES, Board, boards, markdown, stream_of
from lightning_cl.cli.ledger import Claim, Measurement, Number, claim_names, mean_costs, read_claim
from lightning_cl.reports.leaderboard import figures
from lightning_cl.reports.report import read

METRIC = "class_il/average_accuracy"
SHORT = (
    *("--data.scenario.num_tasks", "2", "--data.epochs_per_task", "1", "--trainer.check_val_every_n_epoch", "1"),
    *("--trainer.limit_train_batches", "1", "--data.eval_batch_size", "512"),
)


def claim(
    method: str, mean: float, minutes: float | None, std: float | None = None, costs: dict | None = None
) -> Claim:
    numbers = {METRIC: {"mean": mean, "std": std, "values": []}}
    measured = Measurement((0, 1), numbers, "x", "", minutes, None, costs or {})
    return Claim(
        *(f"bench_s_{method}", "", (), (), f"lightning-cl bench s.yaml --methods {method}", None, (0, 1), "percent"),
        *({METRIC: Number(None, None, 1.0)}, measured),
    )


def test_the_best_comes_first_and_the_front_is_what_no_other_beats() -> None:
    made = [claim("a", 60.0, 2.0, 1.5), claim("b", 80.0, 4.0), claim("c", 70.0, 5.0), claim("d", 50.0, 2.0)]
    (board,) = boards([*made, claim("e", 90.0, None)])
    assert board.title == "s.yaml"
    assert [row.method for row in board.rows] == ["e", "b", "c", "a", "d"]
    assert [row.method for row in board.front()] == ["a", "b"]
    points, named = board.points()
    assert points == {"b": (4.0, 80.0), "c": (5.0, 70.0), "a": (2.0, 60.0), "d": (2.0, 50.0)}
    assert named == ["a", "b"]
    text = markdown([board], {})
    assert "| a * | 60.0 ± 1.5 | 2 | 2 |  | `bench_s_a` |" in text  # another version
    assert "| e * | 90.0 | 2 |  |  | `bench_s_e` |" in text


def test_bytes_have_a_figure_of_their_own_where_they_are_known() -> None:
    made = [claim("a", 60.0, 2.0, costs={"stored_bytes": 2**20}), claim("b", 80.0, None), claim("c", 70.0, 1.0)]
    (board,) = boards([*made, claim("d", 50.0, 3.0, costs={"stored_bytes": 2**21})])
    assert board.points("mebibytes") == ({"a": (1.0, 60.0), "d": (2.0, 50.0)}, ["a"])
    drawn = figures([board], AXES)
    assert list(drawn) == [f"{board.name}_minutes", f"{board.name}_mebibytes"]
    text = markdown([board], drawn)
    assert "| a * | 60.0 | 2 | 2 | 1.00 | `bench_s_a` |" in text
    assert text.count("data:image/svg+xml") == 2


def test_costs_are_entered_and_read_again(tmp_path: Path) -> None:
    runs = [{"stored_bytes": 10.0, "forward_samples": 4.0, "other": 1.0}, {"stored_bytes": 20.0}]
    entered = claim("a", 60.0, 2.0, costs=mean_costs(runs))
    (tmp_path / "bench_s_a.yaml").write_text(entered.to_yaml())
    measured = read_claim("bench_s_a", tmp_path).measured
    assert measured is not None
    assert measured.costs == {"stored_bytes": 15.0}
    assert "costs" not in claim("b", 60.0, 2.0).to_yaml()
    (tmp_path / "bench_s_a.yaml").write_text(entered.to_yaml().replace("stored_bytes", "euros"))
    with pytest.raises(UsageError, match=r"unknown `costs`: \['euros'\]"):
        read_claim("bench_s_a", tmp_path)


def test_what_costs_more_than_the_budget_is_named() -> None:
    made = [claim("a", 60.0, 2.0, costs={"forward_samples": 30, "backward_samples": 21}), claim("b", 80.0, 1.0)]
    assert over_budget(made, None) == over_budget(made, Budget("samples", 51)) == {}
    over = over_budget(made, read_budget("samples=5_0"))
    assert list(over) == ["bench_s_a"]
    assert over["bench_s_a"].endswith("is not ranked: it took 51 of 50 samples")
    assert over_budget(made, Budget("bytes", 1)) == {}
    assert ranked(made, over) == made[1:]
    with pytest.raises(UsageError, match=r"no method stays within the budget; .* it took 51 of 50 samples"):
        ranked(made[:1], over)


def test_what_had_no_budget_is_in_another_table() -> None:
    bounded = [replace(one, command=f"{one.command} --budget bytes=9") for one in (claim("a", 60.0, 2.0),)]
    found = boards([*bounded, claim("b", 80.0, 1.0)], least=1)
    assert {board.title: [row.method for row in board.rows] for board in found} == {
        "s.yaml": ["b"],
        "s.yaml within bytes=9": ["a"],
    }


def test_fewer_methods_than_three_are_no_table() -> None:
    two = [claim("a", 60.0, 2.0), claim("b", 80.0, 4.0)]
    assert boards(two) == []
    assert len(boards(two, least=2)) == 1


def test_the_ledger_of_the_package() -> None:
    """Every measured entry in percent of a stream with at least three is in one table, once."""
    claims = [read_claim(name) for name in claim_names()]
    made = boards(claims)
    held = [row.claim for board in made for row in board.rows]
    assert len(held) == len(set(held))
    assert all(len({row.method for row in board.rows}) == len(board.rows) for board in made)  # streams do not mix
    assert not [name for name in held if name.startswith("cifar10_forget")]  # the accuracy before it is no rank
    assert {"digits_ewc", "digits_ranpac", "digits_hat", "real_images_cifar10_resnet20_bic"} <= set(held)
    board = _holding(made, "digits_ewc")
    assert board.title == "Digits, ClassIncremental(num_tasks=5)"
    assert "digits_ranpac" in [row.claim for row in board.rows]  # how images are normalised is the method's affair
    assert "digits_hat" not in [row.claim for row in board.rows]  # it is told the task
    values = [row.value(board.metrics[0]) for row in board.rows]
    assert values == sorted(values, reverse=True)
    assert stream_of(read_claim("real_images_cifar10_resnet20_bic")).endswith("cifar10_resnet20.yaml on cifar10_sub")


def _holding(made: list[Board], name: str) -> Board:
    return next(board for board in made if name in [row.claim for row in board.rows])


def test_the_page_opens_offline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "made" / "page.html"
    assert main(["bench", "--page", str(page)]) == 0
    assert str(page) in capsys.readouterr().out
    text = page.read_text()
    assert "<code>digits_ewc</code>" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", text)
    assert text.count("data:image/svg+xml") > 5


@pytest.mark.parametrize("suite", [(), ("digits",)], ids=["alone", "after a suite"])
def test_a_page_that_cannot_be_written_is_refused_first(
    suite: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["bench", *suite, "--page", str(tmp_path / "file" / "page.html")]) == 2
    said = capsys.readouterr().err
    assert "page.html cannot be written (" in said
    assert said.endswith("give another file with `--page`.\n")


def test_a_command_that_is_refused_leaves_no_page_and_keeps_an_old_one(tmp_path: Path) -> None:
    new, old = tmp_path / "new.html", tmp_path / "old.html"
    old.write_text("of last week")
    for page in (new, old):
        assert main(["bench", "nowhere", "--page", str(page)]) == 2
    assert not new.exists()
    assert old.read_text() == "of last week"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "er"], "`bench` needs a suite"),
        (["nowhere"], "no recipe `nowhere`"),
        (["digits", "--methods", "nothing"], "there is no method `nothing` for `digits`"),
        (["digits", "--seed_everything", "3"], "is set by `compare`; use `--seeds`"),
        (["digits", "--tune-on", "classes"], "none are given; add `--param"),
        (["digits", "--tuning-fraction", "0.3"], "none are given; add `--param"),
        (["digits", "--param", "model.lr=1", "--tuning-fraction", "0.3"], "all are tuned on; add `--tune-on classes`"),
        (
            ["digits", "--param", "ExperienceReplay.memory_size=9,99", "--budget", "bytes=9999"],
            "sets the memory of every method, so its size cannot be tuned",
        ),
        (["digits", "--methods", "er", "--param", "model.lr=1..2"], "model.lr is a range; list values: `a,b,c`."),
        (
            ["digits", "--methods", "er", "--param", "model.lr=1,2", "--seeds", "1000,"],
            "lightning-cl: the seeds [1000] are meant for tuning",  # said once, not for every method
        ),
        (
            ["digits", "--methods", "er", "--param", "model.lr=1", "--tune-on", "classes", "--tuning-fraction", "1"],
            "lightning-cl: `--tuning-fraction` is 1.0",
        ),
        (["digits", "--methods", "er", "--param", "nothing=1,2"], "the configuration has no `nothing`"),
        (["digits", "--param", "model.lr"], "`--param model.lr` has no values"),
        (["digits", "--budget", "bytes=many"], "is no budget; give what a run may store, `--budget bytes=20000000`"),
    ],
)
def test_bad_input(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


def test_tuned_methods_are_ranked_apart() -> None:
    plain = claim("a", 60.0, 2.0)
    assert plain.command is not None
    words = Tuning(("model.lr=0.1,0.2", "data.epochs_per_task=1,2"), "classes", 0.2).words()
    tuned = replace(plain, command=shlex.join([plain.command, *words]))
    assert stream_of(plain) == "s.yaml"
    assert stream_of(tuned) == "s.yaml, tuned: model.lr=0.1,0.2, data.epochs_per_task=1,2, classes, 0.2"


@pytest.mark.slow
def test_every_method_is_tuned_alike_before_its_seeds_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["bench", "digits", "--methods", "finetune,prototypes,cotta", "--seeds", "1", *SHORT]
    words += ["--param", "model.lr=0.5,0.001", "--tune-on", "classes", "--tuning-fraction", "0.4"]
    assert main(words) == 0
    folder = Path("runs/bench/digits")
    for method in ("finetune", "prototypes"):
        rows = (folder / method / "tuning" / "results.csv").read_text().splitlines()
        assert len(rows) == 1 + 2
        entered = read_claim(f"bench_digits_{method}", folder / "ledger")
        assert "the best of 2 trials, on 40% of the classes" in (entered.note or "")
        assert shlex.join(words[-6:]) in (entered.command or "")
        report = read(next((folder / method / "seed0").glob("version_*")))
        facts = report.facts["TwoPhaseProtocol"]
        assert (facts["phase"], facts["trials"]) == ("evaluation", 2)
        best = max(rows[1:], key=lambda row: float(row.split(",")[2])).split(",")[1]
        assert facts["tuned"] == {"model.lr": float(best)}
        config = yaml.safe_load((folder / method / "seed0" / "run.yaml").read_text())
        assert config["model"]["init_args"]["lr"] == float(best)
        assert sum(map(len, report.task_classes)) == 6  # the other four were tuned on
    capfd.readouterr()
    monkeypatch.setattr(tuned_methods, "fit", None)  # no trial is made again
    assert main(words) == 0
    assert capfd.readouterr().out.count("was finished before") == 2

    def only_one(method: MethodChoice, *given: Any) -> Any:
        if method.name == "prototypes":
            raise UsageError("for no reason")
        return tune(method, *given)

    tune = tuned_methods.tune
    monkeypatch.setattr(tuned_methods, "tune", only_one)
    assert main(words) == 1  # what cannot be tuned is missed in the table
    said = capfd.readouterr().out
    assert said.index("prototypes cannot be tuned here: for no reason") < said.index("finetune, seed 0: was finished")


@pytest.mark.slow
def test_what_can_run_is_ranked_and_what_cannot_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["bench", "digits", "--methods", "finetune,prototypes,cotta", "--seeds", "1", *SHORT]
    assert main(words) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "cotta cannot run here: `UnlabelledDomains` has no argument `num_tasks`" in said
    folder = Path("runs/bench/digits")
    ledger = folder / "ledger"
    assert claim_names(ledger) == ["bench_digits_finetune", "bench_digits_prototypes"]
    entered = read_claim("bench_digits_prototypes", ledger)
    assert entered.to_yaml() == (ledger / "bench_digits_prototypes.yaml").read_text()
    assert entered.measured is not None
    assert entered.measured.numbers[METRIC]["mean"] > 90
    assert "bench_digits_prototypes" in (folder / "leaderboard.html").read_text()
    assert main(words) == 0  # what is finished is not run again
    assert "was finished before" in capfd.readouterr().out
