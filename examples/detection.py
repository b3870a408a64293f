"""Detection that learns dark digits on canvases, then bright ones, in lists as torchvision's detectors take them."""

from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision

from lightning_cl.callbacks import L2SP, ContinualEvaluation
from lightning_cl.datamodules import ContinualDataModule, DatasetSource, DomainIncremental, as_lists


class Detector(LightningModule):  # looks for one digit of 8 x 8 pixels on a canvas of 16 x 16
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 32, 9), nn.ReLU(), nn.Conv2d(32, 1, 1), nn.Flatten())

    def forward(self, images: list[Tensor]) -> Tensor:
        scores = self.net(torch.stack(images)).softmax(1)  # of 8 x 8 corners
        places = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)).flip(1).to(scores)
        return scores @ torch.cat([places, places + 8], dim=1)  # (B, 4): the mean box

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.l1_loss(self(batch[0]), torch.cat([target["boxes"] for target in batch[1]]))

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        found = {"scores": torch.ones(1), "labels": torch.zeros(1, dtype=torch.long)}
        return {"preds": [{"boxes": box[None], **found} for box in self(batch[0])], "target": batch[1]}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def canvas(picture: Tensor, bright: bool) -> tuple[Tensor, dict[str, Tensor]]:
    x, y = torch.randint(8, (2,)).tolist()
    image = F.pad(picture, (x, 8 - x, y, 8 - y))[None]
    boxes = torch.tensor([[x, y, x + 8, y + 8]], dtype=torch.float)
    return image if bright else 1 - image, {"boxes": boxes, "labels": torch.zeros(1, dtype=torch.long)}


def main(**trainer_options: Any) -> ContinualEvaluation:
    seed_everything(0)
    digits, domain = torch.from_numpy(load_digits().images[:500]).float() / 16, [n % 2 for n in range(500)]
    data = [canvas(digit, bright=n % 2 == 1) for n, digit in enumerate(digits)]
    options = {"train_domains": domain[:400], "test_domains": domain[400:], "classes": False, "collate_fn": as_lists}
    source = DatasetSource(data[:400], data[400:], **options)
    stream = ContinualDataModule(source, DomainIncremental(), batch_size=16, epochs_per_task=8)
    evaluation = ContinualEvaluation(metric=MeanAveragePrecision())
    Trainer(max_epochs=-1, callbacks=[L2SP(), evaluation], **trainer_options).fit(Detector(), datamodule=stream)
    return evaluation


if __name__ == "__main__":
    main(accelerator="cpu", logger=False, enable_checkpointing=False)
