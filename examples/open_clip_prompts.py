"""An open_clip model in a LightningModule of your own learns class after class by prompts in both of its towers.

    python examples/open_clip_prompts.py          # loads CIFAR-100 and the weights, 0.6 GB

The module is an ordinary linear probe. `CPECLIP` finds the CLIP and the probe, freezes both, and answers with the texts
of the class names, which it takes from the stream.
"""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from lightning import LightningModule, Trainer, seed_everything
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch.nn import functional as F
from torchvision.transforms import Normalize

from lightning_cl.callbacks import CPECLIP, ContinualEvaluation
from lightning_cl.datamodules import CIFAR100, ClassIncremental, ContinualDataModule, Source


class Probe(LightningModule):
    def __init__(self, model: str, pretrained: str | None, num_classes: int) -> None:
        super().__init__()
        self.clip = open_clip.create_model(model, pretrained=pretrained)
        self.normalize = Normalize(OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        self.fc = torch.nn.Linear(open_clip.get_model_config(model)["embed_dim"], num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.clip.encode_image(self.normalize(images)))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)


def main(source: Source, model: str, pretrained: str | None, tasks: int, **trainer_options: Any) -> None:
    seed_everything(0)
    stream = ContinualDataModule(source, ClassIncremental(num_tasks=tasks), batch_size=32, epochs_per_task=5)
    source.setup()  # so that the number of classes is known
    callbacks = [CPECLIP(), ContinualEvaluation()]
    module = Probe(model, pretrained, source.num_classes)
    Trainer(max_epochs=-1, callbacks=callbacks, **trainer_options).fit(module, datamodule=stream)


if __name__ == "__main__":
    data = CIFAR100("data", download=True, image_size=224, normalize=False)  # pixels in [0, 1]
    data.prepare()
    main(data, "ViT-B-16-quickgelu", "openai", tasks=10, logger=False, enable_checkpointing=False)
