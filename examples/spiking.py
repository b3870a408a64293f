"""A spiking network learns digits task after task; HLOP keeps its steps orthogonal to the spikes of earlier tasks.

Needs `pip install "lightning_cl[spiking]"`. The layers are called once for each of the time steps, and HLOP's lateral
connections learn from the spikes of all of them. The last layer answers with its mean membrane potential.
"""

from typing import Any

import snntorch as snn
import torch
from lightning import LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from lightning_cl.callbacks import HLOP, ContinualEvaluation, ContinualMethod
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, Digits

TIME_STEPS = 6


class Spiking(LightningModule):
    def __init__(self, num_classes: int = 10, width: int = 100) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, width, bias=False), nn.Linear(width, width, bias=False)
        self.neurons = nn.ModuleList(snn.Leaky(beta=0.5, threshold=0.3) for _ in range(2))
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        currents = nn.functional.adaptive_avg_pool2d(images, 8).flatten(1)
        states, rates = [neuron.init_leaky() for neuron in self.neurons], []
        for _ in range(TIME_STEPS):
            spikes, states[0] = self.neurons[0](self.first(currents), states[0])
            spikes, states[1] = self.neurons[1](self.second(spikes), states[1])
            rates.append(spikes)
        return self.head(torch.stack(rates).mean(0))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def main(method: ContinualMethod | None = None, **trainer_options: Any) -> ContinualEvaluation:
    seed_everything(0)
    stream = ContinualDataModule(Digits(), ClassIncremental(num_tasks=5), batch_size=32, epochs_per_task=3)
    evaluation = ContinualEvaluation()
    options = {"check_val_every_n_epoch": 3, **trainer_options}
    Trainer(max_epochs=-1, callbacks=[method or HLOP(first=0.4, more=0.1), evaluation], **options).fit(
        Spiking(), datamodule=stream
    )
    return evaluation


if __name__ == "__main__":
    main(accelerator="cpu", logger=False, enable_checkpointing=False)
