from __future__ import annotations

import math
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from tiny_stream import BATCHES, EPOCHS, Spy, TinyModule, make_stream, make_trainer
from torch import Tensor

from lightning_cl.datamodules.finite_loss import FiniteLossCheck

pytestmark = pytest.mark.filterwarnings("ignore")

#: Task of every epoch.
OWNERS = [task for task, epochs in enumerate(EPOCHS) for _ in range(epochs)]


def fit(
    module: TinyModule | None = None, callbacks: Any = (), stream: Any = None, ckpt_path: Any = None, **options: Any
) -> Trainer:
    trainer = make_trainer(options.pop("folder", None), callbacks, **options)
    trainer.fit(module or TinyModule(), datamodule=stream or make_stream(), ckpt_path=ckpt_path)
    return trainer


# ---------------------------------------------------------------------- task hooks and loaders


def expected_events(validated: Any = lambda epoch: True, sizes: Any = (6, 12, 18)) -> list[tuple[str, int, Any]]:
    """The order that the design promises, typed out from it."""
    events: list[tuple[str, int, Any]] = []
    for epoch, task in enumerate(OWNERS):
        if epoch == 0 or OWNERS[epoch - 1] != task:
            events.append(("task_start", epoch, task))
        events.append(("epoch_start", epoch, BATCHES[task]))
        for batch in range(BATCHES[task]):
            events.append(("batch", epoch, batch))
            if batch == BATCHES[task] - 1 and OWNERS[epoch + 1 : epoch + 2] != [task]:
                events.append(("task_end", epoch, task))
            events.append(("batch_end", epoch, batch))
        if validated(epoch):
            events.append(("validation", epoch, (task, sizes[task])))
        events.append(("epoch_end", epoch, None))
    return events


def test_order_of_hooks():
    spy = Spy()
    fit(callbacks=[spy])
    assert spy.events == expected_events()


@pytest.mark.parametrize("every", [2, 3, 4])
def test_validation_grows_also_when_it_is_rare(every):
    spy = Spy()
    fit(callbacks=[spy], check_val_every_n_epoch=every)
    assert spy.events == expected_events(lambda epoch: (epoch + 1) % every == 0)


@pytest.mark.parametrize("options", [{"num_sanity_val_steps": 2}, {"reload_dataloaders_every_n_epochs": 1}])
def test_order_of_hooks_under_other_trainers(options):
    spy = Spy()
    fit(callbacks=[spy], **options)
    assert spy.events == expected_events()


def test_validation_in_mid_epoch_is_of_the_same_tasks():
    spy = Spy()
    fit(callbacks=[spy], val_check_interval=1)
    assert [detail for _, _, detail in spy.of("validation")] == [
        (task, 6 * (task + 1)) for task in OWNERS for _ in range(BATCHES[task])
    ]


def test_the_trainer_knows_the_batches_of_every_task():
    class Lengths(Spy):
        def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
            self.events.append(
                ("lengths", trainer.current_epoch, (trainer.num_training_batches, trainer.is_last_batch))
            )

    spy = Lengths()
    fit(callbacks=[spy])
    assert [detail for _, _, detail in spy.of("lengths")] == [
        (BATCHES[task], batch == BATCHES[task] - 1) for task in OWNERS for batch in range(BATCHES[task])
    ]


def test_loaders_are_asked_for_at_boundaries_only(monkeypatch):
    stream, asked = make_stream(), []
    for name in ("train_dataloader", "val_dataloader"):
        original = getattr(stream, name)

        def ask(name: str = name, original: Any = original) -> Any:
            asked.append((name, stream.trainer.current_epoch))
            return original()

        monkeypatch.setattr(stream, name, ask)
    fit(stream=stream)
    assert sorted(asked) == [(name, epoch) for name in ("train_dataloader", "val_dataloader") for epoch in (0, 2, 3)]


def test_every_epoch_trains_on_its_task_in_an_order_of_its_own():
    class Labels(Spy):
        def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            self.events.append(("labels", trainer.current_epoch, batch[1].tolist()))

    spy = Labels()
    fit(callbacks=[spy])
    epochs = [sum([d for _, e, d in spy.of("labels") if e == epoch], []) for epoch in range(5)]  # noqa: RUF017
    for task, labels in zip(OWNERS, epochs, strict=True):
        assert sorted(labels) == sorted([2 * task] * (3 + 2 * task) + [2 * task + 1] * (4 + 2 * task))
    assert epochs[3] != epochs[4]


def test_the_module_is_told_before_the_callbacks():
    heard: list[Any] = []

    class Listening(TinyModule):
        def on_task_start(self, task: Any) -> None:
            heard.append(("module", task.index))

    class Callback(Spy):
        def on_task_start(self, trainer: Trainer, pl_module: LightningModule, task: Any) -> None:
            assert task == trainer.datamodule.task
            heard.append(("callback", task.index))

    fit(Listening(), [Callback()])
    assert heard == [(who, task) for task in range(3) for who in ("module", "callback")]


# ---------------------------------------------------------------------- early stopping


class Scripted(TinyModule):
    """Logs the given ``val_loss``, one value per validation."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.losses = iter(losses)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", torch.tensor(next(self.losses)))


@pytest.mark.parametrize("at_train_epoch_end", [None, True, False])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_task_ends_one_epoch_after_early_stopping_says_so(at_train_epoch_end, mode):
    # Task 0 improves once and says stop in epoch 2, task 1 never improves, task 2 always does.
    losses = [*(5, 4, 6, 7), *(9, 9, 8), *(30, 29, 28, 27, 26)]
    sign = 1.0 if mode == "min" else -1.0
    stopping = EarlyStopping("val_loss", patience=1, mode=mode, check_on_train_epoch_end=at_train_epoch_end)
    spy, stream = Spy(), make_stream(early_stopping="task", epochs_per_task=5)
    trainer = fit(Scripted([sign * loss for loss in losses]), [spy, stopping], stream)
    assert stream.schedule.epochs == (4, 3, 5)
    assert trainer.current_epoch == trainer.max_epochs == 12
    assert spy.of("task_start") == [("task_start", 0, 0), ("task_start", 4, 1), ("task_start", 7, 2)]
    assert spy.of("task_end") == [("task_end", 3, 0), ("task_end", 6, 1), ("task_end", 11, 2)]
    assert not trainer.should_stop


def test_a_stop_in_the_last_epoch_of_a_task_does_not_shorten_the_next():
    stream = make_stream(early_stopping="task", epochs_per_task=[2, 3, 1])
    fit(Scripted([5, 6, 5, 4, 3, 9]), [EarlyStopping("val_loss", patience=1)], stream)
    assert stream.schedule.epochs == (2, 3, 1)


def test_early_stopping_of_a_task_respects_a_smaller_max_epochs():
    stream = make_stream(early_stopping="task", epochs_per_task=4)
    trainer = fit(Scripted([5, 6, 7, 5, 5, 5, 5, 5]), [EarlyStopping("val_loss", patience=1)], stream, max_epochs=5)
    assert stream.schedule.epochs == (3, 4, 4)
    assert trainer.current_epoch == 5


def test_early_stopping_of_the_stream_is_lightnings_own():
    spy = Spy()
    with pytest.warns(UserWarning, match='`EarlyStopping` will end the whole stream.*early_stopping="task"'):
        trainer = fit(
            Scripted([5.0, 6, 7]), [spy, EarlyStopping("val_loss", patience=2)], make_stream(epochs_per_task=4)
        )
    assert trainer.current_epoch == 3


@pytest.mark.filterwarnings("ignore:`EarlyStopping` will end")
def test_early_stopping_of_the_stream_compares_within_a_task():
    trainer = fit(Scripted([5.0, 6, 7, 8, 9]), [EarlyStopping("val_loss", patience=1, min_delta=-2)])
    assert trainer.current_epoch == 5
    assert trainer.early_stopping_callback.best_score == 9


# ---------------------------------------------------------------------- the best model


def best_of(folder: Path, losses: list[float], mode: str = "min", k: int = 1, **options: Any) -> ModelCheckpoint:
    saver = ModelCheckpoint(folder, monitor="val_loss", mode=mode, save_top_k=k, filename="{epoch}")
    sign = 1.0 if mode == "min" else -1.0
    fit(Scripted([sign * loss for loss in losses]), [saver], **options)
    return saver


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(("k", "kept"), [(1, {4}), (2, {3, 4}), (-1, {0, 1, 2, 3, 4})])
def test_the_best_model_is_one_of_the_last_task(tmp_path, mode, k, kept):
    saver = best_of(tmp_path, [1, 2, 3, 5, 4], mode, k)  # tasks of 2, 1 and 2 epochs
    assert Path(saver.best_model_path).name == "epoch=4.ckpt"
    assert abs(saver.best_model_score) == 4
    assert {path.name for path in tmp_path.iterdir()} == {f"epoch={epoch}.ckpt" for epoch in kept}


def test_the_best_model_within_a_task_and_of_a_resumed_run(tmp_path):
    assert Path(best_of(tmp_path / "a", [1, 2, 3, 4, 5]).best_model_path).name == "epoch=3.ckpt"
    stopped = best_of(tmp_path / "b", [1, 2, 3, 4], max_epochs=4)
    assert Path(stopped.best_model_path).name == "epoch=3.ckpt"
    resumed = best_of(tmp_path / "b", [5], ckpt_path=stopped.best_model_path)
    assert resumed.best_model_path == stopped.best_model_path
    assert resumed.best_model_score == 4


def test_a_score_that_is_not_finite_is_no_better_than_those_of_earlier_tasks(tmp_path):
    nothing = float("nan")
    assert Path(best_of(tmp_path, [1, 2, 3, nothing, 4]).best_model_path).name == "epoch=4.ckpt"


# ---------------------------------------------------------------------- losses


class Exploding(TinyModule):
    """Returns the given loss at one optimiser step, which counts from 1."""

    def __init__(self, step: int, value: float, as_dict: bool = False) -> None:
        super().__init__()
        self.step, self.value, self.as_dict = step, value, as_dict

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        if self.trainer.global_step == self.step - 1:
            loss = loss * self.value
        return {"loss": loss} if self.as_dict else loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("as_dict", [True, False])
def test_a_loss_that_is_not_finite_names_task_epoch_and_step(tmp_path, value, as_dict):
    keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    message = (
        r"not finite in task 2, epoch 3 \(epoch 0 of the task\), optimiser step 9\. No checkpoint was written after"
    )
    with pytest.raises(FloatingPointError, match=message):
        fit(Exploding(9, value, as_dict), [keep])
    assert {path.stem for path in tmp_path.iterdir()} == {f"step={step}" for step in range(1, 9)}


@pytest.mark.skipif("save_on_exception" not in signature(ModelCheckpoint).parameters, reason="newer than Lightning 2.5")
def test_no_checkpoint_is_saved_even_on_the_exception(tmp_path):
    keep = ModelCheckpoint(tmp_path, save_on_exception=True, save_last=True)
    with pytest.raises(FloatingPointError, match="optimiser step 2"):
        fit(Exploding(2, math.nan), [keep])
    assert not list(tmp_path.iterdir())


def test_a_bad_loss_that_was_not_looked_at_yet_stops_the_checkpoint(tmp_path, monkeypatch):
    """On an accelerator most steps do not wait for the loss."""
    update = FiniteLossCheck.update
    monkeypatch.setattr(FiniteLossCheck, "update", lambda self, *args: update(self, *args) and False)
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=4)
    with pytest.raises(FloatingPointError, match=r"task 0, epoch 1.*optimiser step 3"):
        fit(Exploding(3, math.nan), [keep])
    assert not list(tmp_path.iterdir())


class Overflowing(TinyModule):
    """The gradient of one step overflows, its loss does not."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_after_backward(self) -> None:
        if self.trainer.global_step == self.step - 1:
            self.net[1].weight.grad[0, 0] = math.inf


@pytest.mark.parametrize("step", [9, 15])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, step):
    """The loss tells at the next step, and never after the last one."""
    keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(FloatingPointError, match=rf"weights that are not finite: `net\.1\.weight` .* step {step}\."):
        fit(Overflowing(step), [keep])
    assert {path.stem for path in tmp_path.iterdir()} == {f"step={n}" for n in range(1, step)}


def test_weights_that_are_not_finite_are_not_evaluated_after_a_task():
    spy = Spy()
    with pytest.raises(FloatingPointError, match=r"not finite: .* in task 0, epoch 1 .* step 4\."):
        fit(Overflowing(4), [spy])
    assert "task_end" not in {name for name, *_ in spy.events}


def test_the_same_trainer_goes_on_after_a_bad_loss(tmp_path):
    """With a fresh module, a lower learning rate for instance: the bad step is of the run before."""
    trainer = make_trainer(tmp_path, [ModelCheckpoint(tmp_path, every_n_train_steps=1, save_last=True)])
    stream = make_stream()
    with pytest.raises(FloatingPointError, match="optimiser step 9"):
        trainer.fit(Exploding(9, math.nan), datamodule=stream)
    trainer.fit(TinyModule(), datamodule=stream, ckpt_path=tmp_path / "last.ckpt")
    assert (trainer.current_epoch, trainer.global_step) == (5, 15)


def test_the_first_bad_step_is_remembered():
    watch = FiniteLossCheck()
    assert watch.first_bad_step is None
    assert not watch.update(None, 1)  # a step that was left out
    for step, loss in enumerate([1.0, math.inf, 1.0, math.nan], start=2):
        assert watch.update(torch.tensor(loss), step)
    assert watch.first_bad_step == 3


@pytest.mark.parametrize("losses", [[1.0, math.nan], [math.inf, -math.inf], [-math.inf, 1.0]])
def test_no_element_of_a_loss_may_be_bad(losses):
    watch = FiniteLossCheck()
    assert watch.update(torch.tensor([3e38, 3e38]), 1)  # too large a sum is no bad loss
    assert watch.first_bad_step is None
    watch.update(torch.tensor(losses), 2)
    assert watch.first_bad_step == 2


def test_losses_on_an_accelerator_are_looked_at_now_and_then():
    watch, loss = FiniteLossCheck(), torch.empty((), device="meta")
    assert [step for step in range(1, 120) if watch.update({"loss": loss}, step)] == [1, 51, 101]


def test_a_skipped_step_is_no_bad_loss():
    class Skipping(TinyModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    assert fit(Skipping()).current_epoch == 5


# ---------------------------------------------------------------------- checkpoints


def test_a_checkpoint_loads_with_weights_only(tmp_path):
    keep = ModelCheckpoint(tmp_path, save_last=True)
    fit(callbacks=[keep, EarlyStopping("val_loss")], stream=make_stream(early_stopping="task"), folder=tmp_path)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["lightning_cl"]
    assert (state["version"], state["started"], state["ended"], len(state["random_states"])) == (1, 2, 2, 1)


def test_a_checkpoint_of_a_method_is_not_loaded_without_it(tmp_path):
    trainer = fit(max_epochs=1)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    state = torch.load(tmp_path / "plain.ckpt", weights_only=True)
    state["state_dict"]["continual.mask.seen"] = torch.zeros(6)
    torch.save(state, tmp_path / "method.ckpt")
    module = TinyModule()
    with pytest.raises(ValueError, match="made with a continual-learning method, but this Trainer has none"):
        make_trainer().fit(module, datamodule=make_stream(), ckpt_path=tmp_path / "method.ckpt")


def test_the_module_is_left_without_hooks():
    module = TinyModule()
    fit(module)
    assert not module._load_state_dict_pre_hooks


def test_only_one_driver_is_installed(tmp_path: Path):
    stream = make_stream()
    trainer = fit(stream=stream, max_epochs=1)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(TinyModule(), datamodule=stream)
    assert [type(c).__name__ for c in trainer.callbacks].count("TaskLoop") == 1
    assert type(trainer.callbacks[0]).__name__ == "TaskLoop"
