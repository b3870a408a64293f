"""Claims of one stream are ranked in one table, and `lightning-cl bench` measures, enters and ranks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightning_cl.cli import main
from lightning_cl.cli.leaderboard import Board, boards, markdown, stream_of
from lightning_cl.cli.ledger import Claim, Measurement, Number, claim_names, read_claim

METRIC = "class_il/average_accuracy"
SHORT = (
    *("--data.scenario.num_tasks", "2", "--data.epochs_per_task", "1", "--trainer.check_val_every_n_epoch", "1"),
    *("--trainer.limit_train_batches", "1", "--data.eval_batch_size", "512"),
)


def claim(method: str, mean: float, minutes: float | None, std: float | None = None, version: str = "x") -> Claim:
    measured = Measurement((0, 1), {METRIC: {"mean": mean, "std": std, "values": []}}, version, "", minutes, None)
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
    assert "| a * | 60.0 ± 1.5 | 2 | 2 | `bench_s_a` |" in text  # another version
    assert "| e * | 90.0 | 2 |  | `bench_s_e` |" in text


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


def test_a_page_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["bench", "--page", str(tmp_path / "file" / "page.html")]) == 2
    said = capsys.readouterr().err
    assert "page.html cannot be written (" in said
    assert said.endswith("give another file with `--page`.\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "er"], "`bench` needs a suite"),
        (["nowhere"], "no recipe `nowhere`"),
        (["digits", "--methods", "nothing"], "there is no method `nothing` for `digits`"),
        (["digits", "--seed_everything", "3"], "is set by `compare`; use `--seeds`"),
    ],
)
def test_bad_input(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


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
