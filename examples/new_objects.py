"""A torchvision detector learns digits on canvases, five classes at a time; plainly, then merged by DuET."""

from typing import Any

import torch
from lightning import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator

from lightning_cl.callbacks import ContinualEvaluation, DuET
from lightning_cl.datamodules import BoxSource, ContinualDataModule, MultiLabelIncremental


class Detector(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        shapes = [(1, 32, 1), (32, 32, 2), (32, 32, 2)]  # channels, and steps: 8 x 8 cells in the end
        layers = [part for i, o, s in shapes for part in (nn.Conv2d(i, o, 3, s, 1), nn.GroupNorm(4, o), nn.ReLU())]
        backbone, anchors = nn.Sequential(*layers), AnchorGenerator(((8,),), ((1.0,),))
        backbone.out_channels = 32
        grey = {"image_mean": [0.0], "image_std": [1.0], "min_size": 32, "max_size": 32, "score_thresh": 0.01}
        self.net = FCOS(backbone, num_classes=10, anchor_generator=anchors, **grey)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return torch.stack(list(self.net(*batch).values())).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return {"preds": self.net(batch[0]), "target": batch[1]}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.005)


def canvas(pictures: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:  # two digits, left and right
    image, corners = torch.zeros(1, 32, 32), torch.randint(9, (2, 2)) + torch.tensor([[0, 8], [16, 8]])
    for picture, (x, y) in zip(pictures, corners.tolist(), strict=True):
        image[0, y : y + 8, x : x + 8] = picture
    return image, {"boxes": torch.cat([corners, corners + 8], dim=1).float(), "labels": labels}


def main(*methods: Any, images: int = 600, epochs: int = 8, **trainer_options: Any) -> ContinualEvaluation:
    seed_everything(0)
    digits, chosen = load_digits(), torch.randint(1797, (images, 2))
    pictures, classes = torch.from_numpy(digits.images).float() / 16, torch.from_numpy(digits.target)[chosen]
    data, cut = [canvas(pictures[rows], labels) for rows, labels in zip(chosen, classes, strict=True)], images * 4 // 5
    source = BoxSource(data[:cut], data[cut:], classes[:cut], classes[cut:], first_label=0)
    stream = ContinualDataModule(source, MultiLabelIncremental(2), batch_size=16, epochs_per_task=epochs)
    evaluation = ContinualEvaluation(metric=MeanAveragePrecision())
    Trainer(max_epochs=-1, callbacks=[*methods, evaluation], **trainer_options).fit(Detector(), datamodule=stream)
    return evaluation


if __name__ == "__main__":
    for methods in ([], [DuET()]):
        main(*methods, accelerator="cpu", logger=False, enable_checkpointing=False, check_val_every_n_epoch=8)
