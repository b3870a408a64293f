"""A variational autoencoder that classifies, tells what it does not know, and replays what it draws."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.namespace import LightningModule
from lightning_cl.nn.open_set import AggregatePosteriorBound, accepted_latents, latent_divergence
from lightning_cl.training.evaluation_mode import evaluating
from lightning_cl.training.transfer import transferred


class OpenVAE(LightningModule):
    """A classifier on the latents of a variational autoencoder, with replay of its own samples (arXiv:2009.01797).

    In the style of OpenVAE: the loss is cross-entropy, plus the mean absolute error of the reconstruction, plus
    ``beta`` times the divergence per element of the latents, each of one draw of latents from inputs with noise. After
    a task the bounds of all classes are fitted to the latents of the task's samples and of those replayed; then as many
    samples as were learned from are drawn, of each class alike, and kept if their latents lie within its bound. They
    are decoded, and each batch of the next task comes with as many of them. No sample is stored, but those drawn are:
    they are in the checkpoint. ``bound.outlier_probability(model.latents(x))`` tells unknown inputs.

    Differences from the released code: any encoder and decoder, no growing head, as many old samples as new ones in a
    batch, and other limits where the bound is widened because few latents are accepted.

    Args:
        encoder: ``(B, ...)`` inputs to ``(B, 2 Z)``: means, and logarithms of standard deviations.
        decoder: ``(B, Z)`` to the inputs' shape.
        latent: ``Z``.
        num_classes: Of the whole stream.
        beta: Of the divergence, at least 0.
        noise: Standard deviation of what is added to inputs in training.
        lr: Of Adam.
        replay: Read drawn samples again; without, it is plain fine-tuning.
        rounds: Batches of 256 latents that are drawn at most before the bound is widened.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent: int,
        num_classes: int,
        beta: float = 0.1,
        noise: float = 0.25,
        lr: float = 1e-3,
        replay: bool = True,
        rounds: int = 500,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, nn.Linear(latent, num_classes)
        self.bound = AggregatePosteriorBound(num_classes, latent)
        self.beta, self.noise, self.lr, self.replay, self.rounds = beta, noise, lr, replay, rounds
        #: Inputs drawn after the last task, and their labels; empty before.
        self.drawn: tuple[Tensor, Tensor] | None = None

    def latents(self, x: Tensor) -> Tensor:
        """``(B, Z)`` mean latents."""
        return cast(Tensor, self.encoder(x).chunk(2, 1)[0])

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C)`` logits of the mean latents."""
        return cast(Tensor, self.head(self.latents(x)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch and of as many samples that were drawn before the task."""
        x, y = batch
        if self.drawn is not None and len(self.drawn[1]):
            rows = torch.randint(len(self.drawn[1]), (len(y),))
            x, y = (torch.cat([own, old[rows].to(own)]) for own, old in zip((x, y), self.drawn, strict=True))
        mean, log_deviation = self.encoder(x + self.noise * torch.randn_like(x)).chunk(2, 1)
        z = mean + log_deviation.exp() * torch.randn_like(mean)
        loss = F.cross_entropy(self.head(z), y) + F.l1_loss(self.decoder(z), x)
        return loss + self.beta * latent_divergence(mean, log_deviation.exp())

    def on_task_end(self, task: Any) -> None:
        """Fit the bounds, and draw what is replayed in the next task."""
        with evaluating(self):
            self._consolidate(*self._learned_from(task), task.index)

    def _consolidate(self, x: Tensor, y: Tensor, index: int) -> None:
        latents = self.latents(x)
        self.bound.fit(latents, y, self.head(latents).argmax(1) == y)
        if self.replay:
            known = y.unique()
            quota = torch.zeros(self.head.out_features, dtype=torch.long)
            quota[known.cpu()] = -(-len(y) // len(known))
            generator = torch.Generator().manual_seed(mix_seed(self.trainer.datamodule.seed, 0x0E5, index))  # type: ignore[attr-defined]
            z, labels = accepted_latents(self.bound, self.head, quota, generator, rounds=self.rounds)
            self.drawn = self.decoder(z), labels

    def _learned_from(self, task: Any) -> tuple[Tensor, Tensor]:
        """All samples of a task, on every process, and those that were drawn before it."""
        stream: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        index = stream.layout.train_index[task.index]  # a loader would give each process its share alone
        parts = [transferred(self.trainer, stream.batch(index, view="eval"))]
        parts += [self.drawn] if self.drawn is not None else []
        x, y = (torch.cat([part[at].to(self.device) for part in parts]) for at in (0, 1))
        return x, y

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Logits of a batch."""
        return cast(Tensor, self(batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was drawn."""
        checkpoint["drawn"] = self.drawn

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with it."""
        self.drawn = checkpoint["drawn"]
