"""NHL-style adaptation: the first convolution learns by a Hebbian rule, a modulator behind it by entropy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.adaptation.unlabelled import Adaptation, AdaptationMethod
from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.nn.adapters import SSF, Adapters, inject
from lightning_cl.nn.adapters.sites import exactly
from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.guard import whole
from lightning_cl.nn.hebbian import patches, soft_hebbian, turn_rows_, unit_rows
from lightning_cl.nn.losses import soft_cross_entropy
from lightning_cl.nn.precision import wide
from lightning_cl.nn.weights import Snapshot
from lightning_cl.training import Step
from lightning_cl.training.evaluation_mode import in_eval_mode
from lightning_cl.training.loss_terms import zero_through


class HebbianLayer(Adaptation):
    """The first convolution, its weights as they were trained, and a scale and a shift for each of its channels."""

    def __init__(self, module: Any, name: str, modulator: Adapters, method: NHL) -> None:
        super().__init__()
        self.name, self.modulator, self.method = name, modulator, method
        self.source = Snapshot({"weight": module.get_submodule(name).weight})
        self._seen: list[Tensor] = []
        self._change: Tensor | None = None  # of the rows, until the optimiser's step is over

    def layer(self, module: Any) -> nn.Conv2d:
        """The convolution."""
        return cast(nn.Conv2d, module.get_submodule(self.name))

    def adapted(self, module: Any) -> list[nn.Parameter]:
        """The modulator."""
        return list(self.modulator.parameters())

    def start_task(self, module: Any, task: Any) -> None:
        """Before the first domain without labels, keep the weights; with ``reset``, put them back before each other."""
        super().start_task(module, task)
        if not self.adapts:
            return
        if not self.source.taken:
            self.source.take({"weight": self.layer(module).weight})
        elif self.method.reset:
            self.reset(module)

    @torch.no_grad()
    def reset(self, module: Any) -> None:
        """Put the convolution back to what it was before any adaptation, and the modulator to 1 and 0."""
        self.layer(module).weight.copy_(dict(self.source.items())["weight"])
        for bank in self.modulator:
            assert isinstance(bank, SSF)
            bank.gamma.fill_(1.0)
            bank.beta.zero_()

    def adaptation_loss(self, step: Step) -> Tensor:
        """Mean entropy of the answers, which are given before anything is learned of the batch."""
        module, trainer = step.module, step.module.trainer
        layer = self.layer(module)
        hook = layer.register_forward_pre_hook(self._see)
        try:
            with in_eval_mode(module):  # batch norm keeps the source's statistics
                _, call = step.learn(step.inputs)
        finally:
            hook.remove()
        logits = wide(module.continual.mask(call.raw_logits))
        self.predicted = logits.detach().argmax(dim=1)
        if trainer.datamodule.train_batch_size(trainer.fit_loop.batch_idx) < self.method.least:
            self._seen.clear()
            return zero_through((p for p in module.parameters() if p.requires_grad), module.device)
        self._learn(layer, trainer)
        return soft_cross_entropy(logits, logits).mean()

    def _see(self, layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._seen.append(given[0].detach())

    @torch.no_grad()
    def _learn(self, layer: nn.Conv2d, trainer: Any) -> None:
        """Sum the Hebbian change over the patches of all processes."""
        images, rows = self._seen.pop(), unit_rows(layer.weight)[0]
        real = trainer.datamodule.train_batch(trainer.fit_loop.batch_idx).real
        found = patches(layer, images[:real].to(rows.dtype))
        total = all_sum(soft_hebbian(rows, found, self.method.temperature))
        count = all_sum(torch.tensor(float(len(found)), device=rows.device)).clamp_min(1)
        change = self.method.rate * total / count
        self._change = change if self._change is None else self._change + change

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """The modulator has no gradient behind batches that were too small; decay and momentum leave it alone, too."""
        super().edit_gradients(module, optimizer)
        for parameter in self.adapted(module) if self._change is None else ():
            parameter.grad = None

    def after_step(self, module: Any, optimizer: Any) -> None:
        """Turn the rows; behind the step, for the gradient is that of the answers before it."""
        if self._change is not None and self.method.rate:
            turn_rows_(self.layer(module).weight, self._change)
        self._change = None

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """All but the modulator and the convolution's weights; the modulator while there are labels."""
        kernel = self.layer(module).weight
        yield from whole(p for p in self.idle(module) if not (self.adapts and p is kernel))


@dataclass(eq=False)
class NHL(AdaptationMethod):
    """NHL-style adaptation (neuro-modulated Hebbian learning; Tang et al., CVPR 2023, arXiv:2303.00914).

    Written from the abstract, with the usual soft Hebbian rule: advertised as NHL-style, not as a reproduction. On an
    ``UnlabelledDomains`` stream. While there are labels it is plain training. Then every batch is answered, and learned
    once: the rows ``w`` of the first convolution, at unit length, turn by ``rate * mean y_k (x - u_k w_k)`` over all
    its patches ``x``, with ``u = W x`` and ``y = softmax(u / temperature)``, and keep their lengths; a scale and a
    shift for each of its channels (1 and 0 at first) learn by your optimiser (the default of the reconstruction: Adam,
    1e-3) on the mean entropy of the answers. All else stays bit for bit, and batch norm keeps the source's statistics.
    A batch of fewer than ``least`` samples is only answered. Needs no boundaries between domains; works on any network
    with a convolution that reads images, a ViT's patches included. A step makes one pass and keeps one copy of the
    convolution.

    Args:
        rate: Of the Hebbian rule, at least 0.
        temperature: Of the competition between channels, above 0.
        least: Samples of a batch, over all processes, below which nothing is learned: the entropy of a few collapses.
        reset: Put convolution and modulator back before every domain but the first without labels, which needs to know
            where it begins.
        layer: Dotted path of the convolution; ``None``: the first of the network.

    Raises:
        ValueError: If a number is out of its range; when attached, if there is no convolution, or it has groups; in
            ``setup``, on a stream whose tasks all have labels.
    """

    state_key: ClassVar[str] = "lightning_cl.NHL"
    small: ClassVar[dict[str, Any]] = {"least": 2}

    rate: float = at_least(0, default=1e-3)
    temperature: float = above(0, default=1.0)
    least: int = at_least(1, default=8)
    reset: bool = False
    layer: str | None = None

    def build(self, pl_module: Any, info: Any) -> HebbianLayer:
        """The modulator behind the convolution."""
        found = [name for name, layer in pl_module.named_modules() if isinstance(layer, nn.Conv2d)]
        name = self.layer or (found[0] if found else "")
        layer = pl_module.get_submodule(name) if name in found else None
        if layer is None or layer.groups != 1 or isinstance(layer.padding, str):
            what = f"`{name}`" if name else "none"
            raise ValueError(
                f"NHL adapts a convolution that reads images, without groups and with a padding in pixels, but found"
                f" {what} in this {type(pl_module).__name__}; name one with `layer` ({', '.join(found[:4]) or '-'})."
            )
        modulator = inject(pl_module, _modulator, at=exactly([name]), site="modulator")
        return HebbianLayer(pl_module, name, modulator, self)


def _modulator(layer: nn.Module) -> SSF:
    return SSF(1, cast(nn.Conv2d, layer).out_channels, 0.0, channel_dim=1)
