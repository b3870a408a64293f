"""ImageClassifier: steps on several batch formats, schedules within the task, resumes, weights from a file."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lightning_cl.callbacks import FineTuning
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule
from lightning_cl.models import ImageClassifier
from lightning_cl.nn.schedules import coda_cosine, coda_cosine_released

SMALL = {"depth": 1, "embed_dim": 32, "num_heads": 2}


def model(**options: Any) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(
        **{"pretrained": False, "num_classes": 4, "backbone_kwargs": SMALL, "lr": 0.1, "optimizer": "sgd", **options}
    )


def stream(**options: Any) -> ContinualDataModule:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 1, 16, 16), dtype=torch.uint8, generator=generator)
    labels = torch.arange(24) % 4
    source = ArraySource((images, labels), (images, labels))
    return ContinualDataModule(source, ClassIncremental(2), **{"batch_size": 5, "epochs_per_task": [2, 3], **options})


class Watch(Callback):
    """Learning rate of every epoch, and a stop at one of them."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.rates: dict[int, float] = {}
        self.stop_after = stop_after

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.rates[trainer.current_epoch] = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.current_epoch == self.stop_after:
            raise KeyboardInterrupt


def fit(
    module: ImageClassifier, folder: Path, *callbacks: Callback, data: Any = None, **options: Any
) -> tuple[Trainer, Watch]:
    watch = Watch()
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, watch],
        **options,
    )
    trainer.fit(module, datamodule=data or stream())
    return trainer, watch


@pytest.mark.parametrize("reset_optimizer", [False, True])
@pytest.mark.parametrize("schedule", ["coda_cosine", "coda_cosine_released", "cosine"])
def test_schedules_begin_anew_with_every_task(tmp_path: Path, schedule: Any, reset_optimizer: bool) -> None:
    _, watch = fit(model(lr_schedule=schedule), tmp_path, FineTuning(reset_optimizer=reset_optimizer))
    places = [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]  # (epoch within the task, epochs of the task)
    quarter = {"coda_cosine": coda_cosine, "coda_cosine_released": coda_cosine_released}.get(schedule)
    if quarter is not None:
        expected = [0.1 * quarter(*place) for place in places]
    else:
        expected = [0.05 * (1 + math.cos(math.pi * epoch / epochs)) for epoch, epochs in places]
    assert_close(list(watch.rates.values()), expected)


def test_any_scheduler_counts_within_the_task(tmp_path: Path) -> None:
    module = model(lr_schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5))
    _, watch = fit(module, tmp_path)
    assert_close(list(watch.rates.values()), [0.1, 0.05, 0.1, 0.05, 0.025])


def test_a_plateau_is_left_at_the_next_task(tmp_path: Path) -> None:
    never_better = {"patience": 0, "threshold": 1e9}
    module = model(lr_schedule=lambda o: ReduceLROnPlateau(o, monitor="val_loss", **never_better))
    _, watch = fit(module, tmp_path, data=stream(epochs_per_task=3))
    assert_close(list(watch.rates.values()), [0.1, 0.01, 0.001] * 2)


def test_constant_rate_and_plain_loaders(tmp_path: Path) -> None:
    batches = DataLoader(TensorDataset(torch.rand(3, 1, 16, 16), torch.tensor([0, 1, 3])), batch_size=3)
    module = model(lr_schedule="cosine")
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        max_epochs=4,
        callbacks=[watch := Watch()],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, batches, batches)
        predicted = trainer.predict(module, batches)
    assert_close(list(watch.rates.values()), [0.05 * (1 + math.cos(math.pi * e / 4)) for e in range(4)])
    assert_close(torch.cat(predicted).sum(-1), torch.ones(3))


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_resume_keeps_the_schedule(tmp_path: Path, stop_after: int) -> None:
    """Stopped at a boundary (epoch 1) or within a task; rates and weights are those of a run that was not."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    whole = model(lr_schedule="cosine")
    _, watch = fit(whole, tmp_path / "whole", FineTuning())
    checkpoint = ModelCheckpoint(dirpath=tmp_path, filename="stop", save_on_train_epoch_end=True)
    with pytest.raises(SystemExit):
        fit_with_checkpoint(model(lr_schedule="cosine"), tmp_path, checkpoint, Watch(stop_after))
    resumed = model(lr_schedule="cosine")
    trainer = fit_with_checkpoint(resumed, tmp_path / "again", rest := Watch(), ckpt_path=checkpoint.best_model_path)
    assert trainer.current_epoch == 5
    assert rest.rates == {epoch: rate for epoch, rate in watch.rates.items() if epoch >= min(rest.rates)}
    assert min(rest.rates) in (stop_after, stop_after + 1)
    assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def fit_with_checkpoint(
    module: ImageClassifier, folder: Path, *callbacks: Callback, ckpt_path: str | None = None
) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FineTuning(), *callbacks],
    )
    trainer.fit(module, datamodule=stream(), ckpt_path=ckpt_path)
    return trainer


def test_metrics_are_exact_over_uneven_batches(tmp_path: Path) -> None:
    """24 samples in batches of 5: a mean of batch means would weigh the last four too much."""
    module, data = model(lr=0.0), stream()
    trainer, _ = fit(module, tmp_path, data=data)
    batches = list(data.test_dataloader())
    with torch.no_grad():
        logits = torch.cat([module.eval()(images) for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    [tested] = trainer.test(module, datamodule=data, verbose=False)
    assert len(labels) == 24
    assert tested["test_acc"] == pytest.approx((logits.argmax(-1) == labels).float().mean().item())
    assert tested["test_loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert {"train_loss", "val_loss", "val_acc"} <= set(fit(module, tmp_path)[0].callback_metrics)


def test_padding_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process holds two samples of the batch; the third only repeats one, and its label is wrong."""
    module = model()
    held = SimpleNamespace(eval_batch=lambda batch_idx, stage: SimpleNamespace(index=torch.tensor([7, 9])))
    monkeypatch.setattr(ImageClassifier, "_stream", held)
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    images = torch.rand(3, 1, 16, 16)
    labels = module(images).argmax(-1)
    labels[2] = (labels[2] + 1) % 4
    module.validation_step((images, labels), 0)
    assert module.val_acc.compute() == 1.0
    assert_close(module.val_loss.compute(), torch.nn.functional.cross_entropy(module(images)[:2], labels[:2]))


def test_dictionaries_need_the_right_keys(tmp_path: Path) -> None:
    keys = ("picture", "kind")
    fit(model(batch_keys=keys), tmp_path, data=stream(batch_keys=keys, epochs_per_task=1))
    with pytest.raises(ValueError, match=r"has the keys \['kind', 'picture'\] but not \['image', 'label'\]"):
        fit(model(), tmp_path, data=stream(batch_keys=keys))


def test_the_head_is_where_timm_has_it() -> None:
    assert model().net.head.out_features == 4
    assert model(backbone="resnet10t", backbone_kwargs=None).net.fc.out_features == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "vit_nano_omniglott"}, "did you mean vit_nano_omniglot"),
        ({"num_classes": 0}, "`num_classes` is 0"),
        ({"optimizer": "adagrad"}, '"adam", "adamw", "sgd"'),
        ({"optimizer": torch.optim.Adam}, "`lr` is 0.1"),
        ({"lr_schedule": "linear"}, '"constant", "cosine", "coda_cosine"'),
        ({"checkpoint_path": "nowhere.safetensors"}, "there is no such file"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        model(**options)


def test_the_number_of_classes_comes_from_the_stream_also_when_it_was_extended(tmp_path: Path) -> None:
    first = stream(epochs_per_task=1)
    trainer, _ = fit(grown := model(num_classes=None), tmp_path, FineTuning(), data=first)
    assert grown.net.head.out_features == 4
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    longer = stream(epochs_per_task=1)
    longer.extend(longer.source, ClassIncremental(2))
    again, kept = model(num_classes=None), grown.net.head.weight.detach().clone()

    class Loaded(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            assert torch.equal(pl_module.net.head.weight[:4], kept)

    options = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu", "max_epochs": -1}
    going_on = Trainer(default_root_dir=tmp_path, callbacks=[FineTuning(), Loaded()], **options)
    going_on.fit(again, datamodule=longer, ckpt_path=tmp_path / "first.ckpt")
    assert again.net.head.out_features == 8
    assert going_on.current_epoch == 4
    with pytest.raises(ValueError, match="`num_classes` is None, and there is no stream"):
        model(num_classes=None).setup("fit")


def test_named_optimisers() -> None:
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    for name, kind in kinds.items():
        optimizer = model(optimizer=name, weight_decay=0.25).configure_optimizers()
        assert type(optimizer) is kind
        assert optimizer.defaults["lr"] == 0.1
        assert optimizer.defaults["weight_decay"] == 0.25
    assert model(optimizer="adamw", lr=None).configure_optimizers().defaults["lr"] == 1e-3
    assert model(optimizer="adamw").configure_optimizers().defaults["weight_decay"] == 0.0  # not AdamW's own 0.01


def test_weights_from_a_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = model(num_classes=7)
    state = {name: value.contiguous() for name, value in source.net.state_dict().items()}
    save_file(state, tmp_path / "seven.safetensors")
    torch.save(state, tmp_path / "seven.pth")
    torch.manual_seed(1)
    for name in ("seven.safetensors", "seven.pth"):
        loaded = ImageClassifier(num_classes=4, checkpoint_path=str(tmp_path / name), backbone_kwargs=SMALL).net
        assert_close(
            {k: v for k, v in loaded.state_dict().items() if not k.startswith("head.")},
            {k: v for k, v in state.items() if not k.startswith("head.")},
        )
        assert loaded.head.out_features == 4


def test_a_file_for_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"conv9.weight": torch.zeros(3)}, tmp_path / "other.pth")
    for backbone in ("vit_nano_omniglot", "vit_tiny_patch16_224"):
        with pytest.raises(ValueError, match=r"other\.pth"):
            ImageClassifier(backbone, num_classes=4, checkpoint_path=str(tmp_path / "other.pth"))


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"could not be fetched \(ConnectionError: no route.*`checkpoint_path`"):
        ImageClassifier("vit_tiny_patch16_224.augreg_in21k", num_classes=4)
