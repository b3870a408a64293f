"""A module that makes its optimiser once and hands it out again at every task."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer, seed_everything
from timm.models.vision_transformer import VisionTransformer

from lightning_cl.callbacks import CODAPrompt, ContinualCallback
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule


class Keeper(LightningModule):
    def __init__(self, keep: bool) -> None:
        super().__init__()
        self.net = VisionTransformer(
            img_size=8, patch_size=4, in_chans=1, embed_dim=16, depth=2, num_heads=2, num_classes=4
        )
        self.keep, self.made = keep, None

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.made is None or not self.keep:
            self.made = torch.optim.Adam(self.parameters(), lr=1e-2)
        return self.made


class Hooks(ContinualCallback):
    def __init__(self) -> None:
        self.counts: list[int] = []

    def on_task_end(self, trainer: Trainer, pl_module: LightningModule, task: object) -> None:
        self.counts.append(len(trainer.optimizers[0]._optimizer_step_post_hooks))


def train(keep: bool) -> tuple[Keeper, list[int]]:
    seed_everything(0, verbose=False)
    x, y = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 4
    stream = ContinualDataModule(
        ArraySource((x, y), (x, y)), ClassIncremental(4), batch_size=3, train_transform=False, eval_transform=False
    )
    model, hooks = Keeper(keep), Hooks()
    callbacks = [CODAPrompt(pool_size=4, prompt_length=2, layers=(0, 1)), hooks]
    Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks,
    ).fit(model, datamodule=stream)  # fmt: skip
    return model, hooks.counts


def test_reused_optimizer_starts_every_task_afresh_and_gathers_no_hooks() -> None:
    kept, counts = train(keep=True)
    fresh, _ = train(keep=False)
    assert counts == [1, 1, 1, 1]
    for name, value in fresh.state_dict().items():
        assert torch.equal(kept.state_dict()[name], value), name
