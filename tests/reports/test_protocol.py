"""The pure part of the protocol guard: comparing predictions, unseen classes, fingerprints, and the card."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lightning_cl.callbacks.evaluation.protocol_checks import Tolerance, compare, judge, unseen_classes, unseen_rows
from lightning_cl.callbacks.evaluation.side_effects import fingerprint, row_fingerprints
from lightning_cl.metrics import ContinualReport, read_report
from lightning_cl.reports.files import to_json
from lightning_cl.reports.protocol import CHECKS, Check, ProtocolCard, merge
from lightning_cl.reports.tables import protocol_table

INF, NAN = float("inf"), float("nan")
EXACT = Tolerance(1e-6)
logits = st.lists(
    st.lists(st.sampled_from([-INF, -2.0, 0.0, 1.0, 1.5]), min_size=3, max_size=3), min_size=1, max_size=5
)


def difference_loop(a: list[list[float]], b: list[list[float]], relative: float) -> tuple[int, int]:
    scale = max((abs(x) for row in a for x in row if abs(x) != INF), default=0.0) or 1.0
    moved = changed = 0
    for mine, other in zip(a, b, strict=True):
        if any(x != y and abs(x - y) / scale > relative for x, y in zip(mine, other, strict=True)):
            moved += 1
            changed += mine.index(max(mine)) != other.index(max(other))
    return moved, changed


@given(logits, st.data())
def test_difference_matches_the_loop(a, data):
    b = [data.draw(st.permutations(row)) for row in a]
    found = compare(torch.tensor(a), torch.tensor(b), EXACT)
    assert (found.moved, found.changed) == difference_loop(a, b, EXACT.relative)
    assert (found.largest > EXACT.relative) == (found.moved > 0)


def test_masked_on_one_side_only_is_a_difference():
    a = torch.tensor([[1.0, -INF, NAN]])
    assert compare(a, a, EXACT).numbers() == {"moved": 0, "changed": 0, "largest": 0.0}
    found = compare(a, torch.tensor([[1.0, 0.0, NAN]]), EXACT)
    assert (found.moved, found.changed, found.largest) == (1, 0, INF)
    with pytest.raises(ValueError, match="cannot be compared"):
        compare(a, a[:, :2], EXACT)


def test_a_shift_within_rounding_is_none_and_is_relative():
    a = torch.tensor([[1000.0, 0.0]])
    assert compare(a, a + 0.0009, EXACT).moved == 0
    assert compare(a / 1000, a / 1000 + 0.0009, EXACT).moved == 1


def test_sixteen_bit_may_flip_few_samples():
    a = torch.zeros(40, 2)
    a[:, 0] = 1.0
    for count, result in ((2, "pass"), (3, "fail")):  # 5 % of 40
        b = a.clone()
        b[:count] = b[:count].flip(1)
        tolerance = Tolerance.of(torch.bfloat16)
        assert judge("batch size", compare(a, b, tolerance), tolerance, "x", "do y").result == result
        tolerance = Tolerance.of(torch.float32)
        assert judge("batch size", compare(a, b, tolerance), tolerance, "x", "do y").result == "fail"
    assert Tolerance.of(torch.float32, "bf16-mixed").relative > Tolerance.of(torch.float32, "32-true").relative
    assert Tolerance.of(torch.float16).relative > Tolerance.of(torch.float64).relative


def test_a_failure_says_how_many_and_what_to_do():
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
    check = judge("batch size", compare(a, b, EXACT), EXACT, "3 samples", "do not.")
    assert check.message == (
        "the logits of 2 of 3 samples change (by up to 1.0e+00 of the largest logit), 1 of them to another class; "
        "do not."
    )
    assert check.numbers == {"moved": 2, "changed": 1, "largest": 1.0}


# ---------------------------------------------------------------------- unseen classes and rows


@pytest.mark.parametrize(
    ("unseen", "masked", "result", "numbers"),
    [
        (-INF, True, "pass", {"columns": 0, "predicted": 0}),
        (-9.0, True, "fail", {"columns": 2, "predicted": 0}),
        (-9.0, False, "pass", {"columns": 2, "predicted": 0}),
        (9.0, False, "fail", {"columns": 2, "predicted": 4}),
    ],
)
def test_unseen_classes(unseen, masked, result, numbers):
    answers = torch.randn(4, 5).clamp(-3, 3)
    answers[:, [1, 4]] = unseen
    check = unseen_classes(answers, [0, 2, 3], masked)
    assert (check.result, check.numbers) == (result, numbers)
    assert unseen_classes(answers, range(5), masked).result == "not checked"


@pytest.mark.parametrize(
    ("mask", "result"),
    [("task", "fail"), ("seen", "fail"), ("all", "not checked"), ("batch", "not checked"), (None, "not checked")],
)
def test_unseen_rows(mask, result):
    head = torch.nn.Linear(3, 4)
    before = row_fingerprints(head.weight)
    with torch.no_grad():
        head.weight[1] += 1e-3
    after = row_fingerprints(head.weight)
    assert unseen_rows(before, after, [0, 1], mask).result == "pass"  # only a seen row moved
    check = unseen_rows(before, after, [0, 2], mask)
    assert (check.result, check.numbers) == (result, {"rows": 1})
    assert unseen_rows(before, after, range(4), mask).result == "not checked"


# ---------------------------------------------------------------------- fingerprints


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.complex64]
)
def test_fingerprints_see_one_bit_and_the_order_of_rows(dtype):
    tensor = torch.zeros(5, 2, 3, dtype=dtype)
    tensor[3, 1, 2] = 1
    rows = row_fingerprints(tensor)
    assert rows.dtype == torch.int64
    assert (rows != row_fingerprints(torch.zeros_like(tensor))).nonzero().flatten().tolist() == [3]
    assert fingerprint(tensor) == fingerprint(tensor.clone())
    assert fingerprint(tensor) != fingerprint(tensor.flip(0))


def test_fingerprints_of_any_shape():
    assert fingerprint(torch.tensor(1.0)) != fingerprint(torch.tensor(1.0000001))
    assert fingerprint(torch.empty(0, 4)) == 0
    weight = torch.randn(4, 6).T  # not contiguous
    assert torch.equal(row_fingerprints(weight), row_fingerprints(weight.contiguous()))


# ---------------------------------------------------------------------- the card

results = st.sampled_from(["pass", "fail", "not checked"])


@given(st.lists(results, min_size=1, max_size=5))
def test_a_failure_stays_on_the_card(found):
    card = ProtocolCard()
    for task, result in enumerate(found):
        card = card.add([Check("state", result, message=f"{result} {task}", numbers={"moved": task}).after(task)])
    check = card["state"]
    worst = next(r for r in ("fail", "pass", "not checked") if r in found)
    assert check.result == worst
    assert check.tasks == tuple(t for t, r in enumerate(found) if r != "not checked")
    assert check.violated == tuple(t for t, r in enumerate(found) if r == "fail")
    assert check.numbers == {"moved": len(found) - 1}
    if worst == "fail":
        assert check.message == f"fail {found.index('fail')}"
        assert card.violations == [check]


def test_merging_is_the_same_from_either_side_where_one_failed():
    good, bad = Check("state", "pass", "a", numbers={"moved": 0}), Check("state", "fail", "b", "wrong", {"moved": 3})
    assert merge(good, bad) == merge(bad, good)
    assert merge(good, bad).numbers == {"moved": 3}


def card_of_everything() -> ProtocolCard:
    passed = [Check(name, "pass", f"compared {name}", numbers={"moved": 0}).after(0) for name in CHECKS]
    failed = Check("batch order", "fail", "64 samples", "sorted.", {"largest": INF, "moved": 3}).after(1)
    return ProtocolCard().add(reversed(passed)).add([failed, Check("tuning", "not checked", message="declare it")])


def test_the_card_has_the_order_of_the_checks_and_goes_through_json():
    card = card_of_everything()
    assert [check.name for check in card.checks] == list(CHECKS)
    back = ProtocolCard.from_dict(json.loads(to_json(card.to_dict())))
    assert back.to_dict() == card.to_dict()
    assert card.notes() == [
        f"protocol: {len(CHECKS) - 1} checks passed, 1 failed, 0 not made",
        "protocol violated, batch order: sorted.",
    ]
    assert ProtocolCard().notes() == []


def test_the_report_keeps_the_card(tmp_path):
    card = card_of_everything()
    report = ContinualReport(class_il=torch.tensor([[1.0]]), protocol=card.to_dict())
    back = read_report(report.write(tmp_path))
    assert ProtocolCard.from_dict(back.protocol).to_dict() == card.to_dict()
    assert read_report(ContinualReport(class_il=torch.tensor([[1.0]])).write(tmp_path)).protocol is None


def test_the_table_shows_every_check_and_says_what_is_wrong():
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(protocol_table(card_of_everything()))
    text = console.export_text()
    assert all(name in text for name in CHECKS)
    assert "Violated: batch order (a prediction does not depend on its place in the batch), after task 2" in text
    assert "sorted." in text
