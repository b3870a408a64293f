"""`restore` rebuilds a trained model without a Trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from timm.models.vision_transformer import VisionTransformer

import lightning_cl
from lightning_cl.callbacks import CODAPrompt, ContinualMethod, FineTuning, PrototypeClassifier
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = VisionTransformer(
            img_size=8, patch_size=4, in_chans=1, embed_dim=16, depth=2, num_heads=2, num_classes=4
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def stream() -> ContinualDataModule:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 1, 8, 8, generator=generator), torch.arange(24) % 4
    source = ArraySource((x, y), (x, y))
    return ContinualDataModule(source, ClassIncremental(2), batch_size=6, train_transform=False, eval_transform=False)


METHODS = {
    "coda_prompt": lambda: CODAPrompt(pool_size=4, prompt_length=2, layers=(0, 1)),
    "fine_tuning": lambda: FineTuning(),
    "prototypes": lambda: PrototypeClassifier(),
}


def train(folder: Path, method: ContinualMethod) -> tuple[Model, str]:
    seed_everything(0, verbose=False)
    model, saver = Model(), ModelCheckpoint(folder, save_last=True)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[method, saver],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=stream())
    return model.eval(), saver.last_model_path


@pytest.mark.parametrize("name", METHODS)
def test_restored_model_predicts_the_same_bits(tmp_path: Path, name: str) -> None:
    model, path = train(tmp_path, METHODS[name]())
    seed_everything(1, verbose=False)
    restored = lightning_cl.restore(path, Model(), [METHODS[name]()])
    images = torch.randn(5, 1, 8, 8)
    assert not restored.training
    with torch.no_grad():
        assert torch.equal(restored(images), model(images))


def test_restore_refuses_other_methods_and_foreign_checkpoints(tmp_path: Path) -> None:
    _, path = train(tmp_path, FineTuning())
    with pytest.raises(ValueError, match=r"was made with FineTuning, but `callbacks` has CODAPrompt"):
        lightning_cl.restore(path, Model(), [METHODS["coda_prompt"]()])
    with pytest.raises(ValueError, match="has no method"):
        lightning_cl.restore(path, Model())
    torch.save({"state_dict": Model().state_dict()}, tmp_path / "plain.pt")
    with pytest.raises(ValueError, match="was not made on a stream"):
        lightning_cl.restore(tmp_path / "plain.pt", Model(), [FineTuning()])


def test_arguments_of_another_kind_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`model` is the class Model; expected an instance"):
        lightning_cl.restore(tmp_path / "any.ckpt", Model, [FineTuning()])
    with pytest.raises(ValueError, match="`callbacks` is a FineTuning; expected a list"):
        lightning_cl.restore(tmp_path / "any.ckpt", Model(), FineTuning())
    with pytest.raises(ValueError, match="is a folder; give a checkpoint file in it"):
        lightning_cl.restore(tmp_path, Model(), [FineTuning()])
