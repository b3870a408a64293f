"""MVP where it belongs: one pass over a blurry stream, with and without a memory, in one process and in two."""

from __future__ import annotations

import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import assert_same_bits, in_forked_processes
from conformance.runs import train as fit_offline
from conformance.streams import digits
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.testing import assert_close

from lightning_cl.callbacks import MVP, ExperienceReplay
from lightning_cl.datamodules import ArraySource, ContinualDataModule, SiBlurry

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"pool_size": 4, "general_length": 2, "expert_length": 3, "general_layers": (0,), "expert_layers": (1, 2)}
UPDATES = 2


def mvp(**options):
    return MVP(**{**SMALL, **options})


def fit(folder, *callbacks, ckpt_path=None, dropout=0.0, batch_size=10, **trainer):
    """81 digits once, each batch twice in a row; batches of 10 leave short ones at the ends of the three tasks."""
    seed_everything(0, verbose=False)
    stream = ContinualDataModule(
        ArraySource(*digits(), mean=(0.3,), std=(0.38,), augment="crop"),
        SiBlurry(num_tasks=3, seed=1),
        batch_size=batch_size,
        epochs_per_task=1,
        updates_per_batch=UPDATES,
    )
    module = PLAIN.build("sgd", dropout)
    options = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    options |= {"enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks)}
    options |= {"enable_model_summary": False, "default_root_dir": folder, **trainer}
    fitted = Trainer(**options, callbacks=list(callbacks))
    fitted.fit(module, datamodule=stream, ckpt_path=ckpt_path)
    return module


def weights(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


class Watch(Callback):
    """Counters, exposed classes and head rows with a gradient, before and in every step."""

    def __init__(self):
        self.usage, self.masks, self.rows, self.labels = [], [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.usage.append(int(pl_module.prompts.usage.sum()))
        self.labels.append(set(batch[1].tolist()))
        exposed = torch.tensor(trainer.datamodule.exposed_classes)
        assert torch.equal(pl_module.continual.mask.eval_allowed.nonzero().flatten(), exposed)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        moved = pl_module.continual_head.weight.grad.abs().amax(dim=1) > 0
        self.rows.append(set(moved.nonzero().flatten().tolist()))


@pytest.mark.parametrize("train_mask", ["seen", "batch"])
def test_every_update_of_a_blurry_stream_is_counted_and_boundaries_are_not_noticed(train_mask, tmp_path):
    watch = Watch()
    module = fit(tmp_path, mvp(train_mask=train_mask), watch)
    assert module.prompts.usage.sum() == UPDATES * 81
    sizes = [after - before for before, after in zip(watch.usage, watch.usage[1:], strict=False)]
    assert set(sizes[:4]) == {10}
    assert watch.usage == sorted(watch.usage)  # no reset
    arrived: set[int] = set()
    for labels, rows in zip(watch.labels, watch.rows, strict=True):
        arrived |= labels
        competing = arrived if train_mask == "seen" else labels
        assert rows == (competing if len(competing) > 1 else set())  # a class alone has no loss


class Abort(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step + 1:  # one step that no checkpoint knows of
            raise ConnectionAbortedError("the power is gone")


@pytest.mark.parametrize(("step", "memory"), [(3, False), (11, True)], ids=["mvp", "mvp-r"])
def test_a_run_that_is_resumed_in_mid_stream_ends_with_the_same_bits(step, memory, tmp_path):
    methods = lambda: [mvp(), *([ExperienceReplay(20, 6)] if memory else [])]  # noqa: E731
    whole = fit(tmp_path / "whole", *methods(), dropout=0.3)
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1)
    with pytest.raises(ConnectionAbortedError):
        fit(tmp_path, *methods(), Abort(step), saving, dropout=0.3)
    path = tmp_path / f"step={step}.ckpt"
    saved = torch.load(path, weights_only=True)
    assert 0 < saved["state_dict"]["continual.parts.mvp.provider.usage"].sum() < whole.prompts.usage.sum()
    resumed = fit(tmp_path, *methods(), dropout=0.3, ckpt_path=path)
    assert_same_bits(weights(resumed), weights(whole))


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_with_a_memory_the_order_of_the_callbacks_does_not_matter(variant, tmp_path):
    results, counts = [], []
    for swap in (False, True):
        methods = [mvp(variant=variant), ExperienceReplay(20, 6)]
        module = fit(tmp_path, *(reversed(methods) if swap else methods))
        results.append(weights(module))
        counts.append(module.prompts.usage.sum())
    assert_same_bits(*results)
    assert counts[0] > UPDATES * 81 + 50  # remembered samples select, too
    without = weights(fit(tmp_path, mvp(variant=variant)))
    assert not torch.equal(without["net.head.weight"], results[0]["net.head.weight"])


@pytest.mark.parametrize(
    ("variant", "memory"),
    [
        pytest.param("paper", True, id="paper-mvp-r"),
        pytest.param("code", False, id="code-mvp"),
        pytest.param("paper", False, id="paper-mvp", marks=pytest.mark.slow),
        pytest.param("code", True, id="code-mvp-r", marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one_on_a_blurry_stream(variant, memory, tmp_path):
    """SGD shows gradients of the wrong size."""
    methods = lambda: [mvp(variant=variant), *([ExperienceReplay(20, 6)] if memory else [])]  # noqa: E731

    def rank():
        module = fit(tmp_path, *methods(), precision="64-true", strategy="ddp", devices=2)
        torch.save(weights(module), tmp_path / f"rank{module.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    expected = weights(fit(tmp_path, *methods(), precision="64-true"))
    first, second = (torch.load(tmp_path / f"rank{me}.pt", weights_only=True) for me in (0, 1))
    for name, value in expected.items():
        assert_close(first[name], second[name], rtol=0, atol=0)
        exact = not value.is_floating_point()
        tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-6, "atol": 1e-8}
        assert_close(first[name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_a_process_that_gets_no_sample_changes_nothing(variant, tmp_path):
    """27 samples a task in batches of 13, 13 and 1."""
    options = {"optimizer": "sgd", "precision": "64-true", "stream_options": {"batch_size": 13}}

    def rank():
        run = fit_offline(PLAIN, mvp(variant=variant), tmp_path, **options, strategy="ddp", devices=2)
        torch.save(run.result(), tmp_path / f"rank{run.trainer.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    together = torch.load(tmp_path / "rank1.pt", weights_only=True)
    for name, value in fit_offline(PLAIN, mvp(variant=variant), tmp_path, **options).result().items():
        assert_close(together[name], value, rtol=1e-6, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")
    assert together["module/continual.parts.mvp.provider.usage"].sum() == 4 * 27
