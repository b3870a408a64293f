"""Every method keeps the protocol, and a run with the guard is the run without it."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_cl.callbacks import CODAPrompt, DualPrompt, FineTuning, ProtocolGuard, PrototypeClassifier
from lightning_cl.reports.protocol import CHECKS, ProtocolCard, ProtocolError

from .methods import METHODS, THOROUGH, case_of, make
from .modules import FOREIGN_DICT, FOREIGN_TUPLE, PLAIN, SPLIT, suited
from .runs import assert_same_bits, in_forked_processes, train
from .streams import NUM_TASKS, STEPS_PER_EPOCH

pytestmark = pytest.mark.filterwarnings("ignore")
OTHERS = (SPLIT, FOREIGN_TUPLE, FOREIGN_DICT)
PAIRS = [(method, PLAIN) for method in THOROUGH]
RARE = [(method, case_of(method)) for method in METHODS if method not in THOROUGH]
RARE += [(method, OTHERS[turn % len(OTHERS)]) for turn, method in enumerate(THOROUGH)]
PAIRS += [pytest.param(*pair, marks=pytest.mark.slow) for pair in RARE]
PROBE = 18


def guard(**options):
    return ProtocolGuard(**{"on_violation": "error", "probe": PROBE, "print_card": False, **options})


@pytest.mark.parametrize(("method", "case"), PAIRS, ids=lambda v: getattr(v, "__name__", None) or v.name)
def test_the_protocol_is_kept_and_the_run_is_the_same(method, case, finished, tmp_path):
    watching = guard(on_violation="warn")
    run = train(case, make(method), tmp_path, callbacks=[watching])
    assert_same_bits(run.result(), finished(method, case).result())
    # torchgeo's task comes with a plateau schedule by `val_loss`, and here that is the loss on the test split.
    expected = ["selection"] if suited(case, method) is FOREIGN_DICT else []
    assert [check.name for check in watching.card.violations] == expected
    assert {check.name for check in watching.card.checks} == set(CHECKS)
    measured = [check for check in watching.card.checks if check.result == "pass"]
    told = {"batch mates", "task identity"} if method.needs_task_identity else set()
    unseen = (
        () if run.stream.task_at(0).new_classes != run.stream.info.seen_classes(NUM_TASKS - 1) else ("classes", "rows")
    )
    assert len(measured) >= len(CHECKS) - 4 - len(expected) - len(told) - len(unseen)
    assert {name for name in ("batch mates", "task identity") if watching.card[name].result == "not checked"} == told
    caches = {"CODAPrompt", "DualPrompt", "L2P", "PrototypeClassifier"}
    assert method.__name__ not in caches or watching.card["remembered features"].result == "pass"


class MovesTheBackbone(Callback):
    """Weights that the remembered features rest on change after the first task."""

    def on_task_start(self, trainer, pl_module, task):
        if task.index == 1:
            with torch.no_grad():
                pl_module.net.patch_embed.proj.weight.mul_(-1.5)


@pytest.mark.parametrize("method", [CODAPrompt, PrototypeClassifier])
def test_stale_features_are_found(method, tmp_path):
    watching = guard(on_violation="warn")
    train(PLAIN, make(method), tmp_path, callbacks=[MovesTheBackbone(), watching])
    assert [check.name for check in watching.card.violations] == ["remembered features"]
    assert watching.card["remembered features"].violated[0] == 1


def test_a_vote_stops_the_run(tmp_path):
    method = make(DualPrompt, batch_vote="always")
    with pytest.raises(ProtocolError, match=r"batch size: prompts are chosen by a vote.*`batch_vote=\"never\"`"):
        train(PLAIN, method, tmp_path, callbacks=[guard()])


# ---------------------------------------------------------------------- processes and resuming


def facts(card: ProtocolCard):
    """All but the size of rounding errors."""
    return [
        {**check, "numbers": {name: value for name, value in check["numbers"].items() if name != "largest"}}
        for check in card.to_dict()["checks"]
    ]


class Counts(Callback):
    """Writes to an unseen row of the head, in the second process only."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_rank == trainer.world_size - 1:
            with torch.no_grad():
                pl_module.net.head.bias[-1] += 0.01


@pytest.mark.parametrize(
    "planted", [pytest.param((), marks=pytest.mark.slow, id="honest"), pytest.param((Counts,), id="planted")]
)
def test_two_processes_have_the_card_of_one(planted, tmp_path):
    options = {"optimizer": "sgd", "precision": "64-true"}

    def run(**more):
        watching = guard(on_violation="warn")
        train(PLAIN, make(CODAPrompt), tmp_path, callbacks=[*(p() for p in planted), watching], **options, **more)
        return facts(watching.card)

    def rank() -> None:
        card = run(strategy="ddp", devices=2)
        torch.save(card, tmp_path / f"rank{torch.distributed.get_rank()}.pt")

    expected = run()
    assert any(check["result"] == "fail" for check in expected) == bool(planted)
    assert in_forked_processes(rank, count=2) == [0, 0]
    for rank_id in (0, 1):
        assert torch.load(tmp_path / f"rank{rank_id}.pt", weights_only=True) == expected


class Abort(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step + 1:
            raise ConnectionAbortedError


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(STEPS_PER_EPOCH, id="before the first boundary's validation"),
        pytest.param(STEPS_PER_EPOCH + 2, id="in a task"),
        pytest.param(3 * STEPS_PER_EPOCH, id="before the second boundary's validation", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_has_the_card_of_the_whole(step, tmp_path):
    class Planted(FineTuning):
        state_key = "lightning_cl.FineTuning"

        def on_task_start(self, trainer, pl_module, task):
            if task.index == 0:  # so that the violation is only in what was checked before the interruption, ...
                pl_module.continual.mask.eval_allowed.fill_(True)

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == (1, 1):  # ... and a row moves before it
                with torch.no_grad():
                    pl_module.net.head.bias[-1] += 1
                pl_module.protect()

    def run(*more, **options):
        watching = guard(on_violation="warn")
        train(PLAIN, Planted(), tmp_path, callbacks=[watching, *more], **options)
        return watching.card.to_dict()

    expected = run()
    failed = [(check["name"], check["violated"]) for check in expected["checks"] if check["result"] == "fail"]
    assert failed == [("unseen classes", [0]), ("unseen rows", [1])]
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=step, save_top_k=-1)
    with pytest.raises(ConnectionAbortedError):
        run(Abort(step), saving)
    path = tmp_path / f"step={step}.ckpt"
    torch.load(path, weights_only=True)
    assert run(ckpt_path=path) == expected
