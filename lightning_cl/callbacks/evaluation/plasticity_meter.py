"""Measure in the middle of a run how well a network can still learn, without a trace in what it learns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import check_above, check_at_least
from lightning_cl.callbacks.base import ContinualCallback, require_stream
from lightning_cl.datamodules.resume import random_states, set_random_states
from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.head_layer import pooled
from lightning_cl.nn.plasticity import active_share, by_unit, dormant_units, effective_rank, fresh_task_loss
from lightning_cl.nn.unit_outputs import layer_input, unit_layers, unit_outputs
from lightning_cl.nn.weights import trained
from lightning_cl.training.batch import call_with, takes_names, unpack
from lightning_cl.training.evaluation_mode import evaluating, in_eval_mode
from lightning_cl.training.find_modules import find_head
from lightning_cl.training.task_data import first_rows
from lightning_cl.training.transfer import transferred

#: What is measured, in the order of the report.
MEASURES = (
    "dormant_units",
    "active_units",
    "effective_rank",
    "weight_norm",
    "gradient_norm",
    "fresh_task_loss",
)


class PlasticityMeter(ContinualCallback):
    """Measures how well the network can still learn, for the report and the loggers; what is learned does not change.

    All is measured in eval mode on the first ``samples`` training samples of the current task, the same on every
    process, after every ``every``-th batch, the first one included:

    - ``dormant_units``: share of units with ``a_u / mean(a) <= threshold`` in their layer, ``a_u`` the mean of their
      ``|output|`` (arXiv:2302.12902);
    - ``active_units``: share of outputs above 0, the mean over layers (FAU, arXiv:2310.07418);
    - ``effective_rank``: of what reaches the head, ``exp`` of the entropy of its singular values;
    - ``weight_norm``: of all trained weights; ``gradient_norm``: of the batch's gradient before methods change it;
    - ``fresh_task_loss``, every ``fresh_every`` batches: the loss in nats on random labels for the first
      ``fresh_samples`` of these after ``fresh_steps`` steps of Adam on a copy of the weights with a head of zeros;
      ``ln C`` before the first step.

    Units are the outputs of activation layers (``nn.ReLU``, ``nn.GELU``, ...); where a network has none as modules, the
    positive part of its linear layers and convolutions. GELU and others are never exactly 0, so there dormant units are
    rare. A measurement costs about as much as one or two training batches of 16 images, a fresh task as much as about
    ``fresh_steps`` batches of ``fresh_samples``: with the defaults 1.6 % of a run of 837 such batches
    on a small ViT, and less of a longer one.

    Args:
        every: Batches from one measurement to the next, at least 1.
        fresh_every: Batches from one fresh task to the next, a multiple of ``every``; ``None``: no fresh task.
        samples: Training samples that are looked at, at least 2.
        fresh_samples: How many of them at most are in a fresh task, at least 2.
        fresh_steps: Steps on a fresh task, at least 1.
        fresh_lr: Of these steps, above 0.
        threshold: Below which a unit is dormant, at least 0.
        head: Dotted path of the layer that makes the class logits; found when ``None``.

    Raises:
        ValueError: If a number is out of its range; in ``setup`` without a stream; when training starts, if the head is
            not found or has nothing before it to look at.
    """

    state_key = "lightning_cl.PlasticityMeter"

    def __init__(
        self,
        every: int = 200,
        fresh_every: int | None = 4000,
        samples: int = 64,
        fresh_steps: int = 8,
        fresh_lr: float = 0.01,
        threshold: float = 0.025,
        head: str | None = None,
        fresh_samples: int = 16,
    ) -> None:
        self.every, self.fresh_every, self.samples, self.fresh_steps = every, fresh_every, samples, fresh_steps
        self.fresh_samples = fresh_samples
        self.fresh_lr, self.threshold, self.head = fresh_lr, threshold, head
        if samples < 2:
            raise ValueError(f"`samples` is {samples}, so there is nothing to measure on; give at least 2.")
        check_at_least(self, 1, "every", "fresh_steps")
        check_at_least(self, 2, "fresh_samples")
        check_at_least(self, 0, "threshold")
        check_above(self, 0, "fresh_lr")
        if fresh_every is not None and (fresh_every < 1 or fresh_every % every):
            raise ValueError(f"`fresh_every` is {fresh_every}; give a multiple of `every`, {every}, or None.")
        self._forget()

    def _forget(self) -> None:
        self._batches, self._gradient_norm = 0, math.nan
        self._rows: list[dict[str, Any]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start at zero; a checkpoint's numbers are put in place afterwards."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._forget()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the head and the units."""
        stream = require_stream(trainer, type(self).__name__)
        known = getattr(getattr(pl_module, "continual", None), "head_path", None)
        self._layer = find_head(pl_module, stream.info.num_classes, self.head or known)[1]
        self._units = unit_layers(pl_module, self._layer)
        self._probe: tuple[int, Any] | None = None
        if not self._units:
            raise ValueError(
                f"{type(pl_module).__name__} has no layer before its head whose units could be looked at; leave "
                f"{type(self).__name__} out."
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """The gradient's norm, in a step that is measured."""
        if self._batches % self.every == 0:
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self._gradient_norm = _norm(gradients)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, if it is time."""
        batches, self._batches = self._batches, self._batches + 1
        if batches % self.every:
            return
        device = trainer.strategy.root_device
        states = random_states(device)
        fresh = self.fresh_every is not None and batches % self.fresh_every == 0
        row = {"batch": batches, "task": trainer.datamodule.task_index}  # type: ignore[attr-defined]
        row |= self._measured(trainer, pl_module, mix_seed(trainer.datamodule.seed, 0x91A, batches) if fresh else None)  # type: ignore[attr-defined]
        set_random_states(states, device)
        self._rows.append(row)
        self._gradient_norm = math.nan
        logged = {f"plasticity/{name}": row[name] for name in MEASURES if row[name] == row[name]}
        pl_module.log_dict(logged, on_step=True, on_epoch=False)

    def _measured(self, trainer: Trainer, module: LightningModule, seed: int | None) -> dict[str, float]:
        inputs, weights = self._samples(trainer, module), trained(module)
        with evaluating(module), unit_outputs(self._units) as outputs:
            features = self._features(module, inputs, {})
        calls = [by_unit(values) for layer in outputs.values() for values in layer]
        dormant = torch.cat([dormant_units(values.abs().mean(0), self.threshold) for values in calls])
        found = {
            "dormant_units": float(dormant.double().mean()),
            "active_units": sum(map(active_share, calls)) / len(calls),
            "effective_rank": effective_rank(features),
            "weight_norm": _norm([p.detach() for p in weights.values()]),
            "gradient_norm": self._gradient_norm,
            "fresh_task_loss": math.nan,
        }
        if seed is not None:
            classes = trainer.datamodule.info.num_classes  # type: ignore[attr-defined]
            count = min(self.fresh_samples, len(features))
            drawn = torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))
            learn = partial(self._features, module, first_rows(inputs, count))
            with in_eval_mode(module):
                found["fresh_task_loss"] = fresh_task_loss(
                    learn, weights, drawn.to(features.device), classes, self.fresh_steps, self.fresh_lr
                )
        return found

    def _samples(self, trainer: Trainer, module: LightningModule) -> Any:
        """Inputs of the current task's first samples, on the device; read once a task."""
        stream: Any = trainer.datamodule  # type: ignore[attr-defined]
        if self._probe is None or self._probe[0] != stream.task_index:
            index = stream.layout.train_index[stream.task_index][: self.samples]
            batch = transferred(trainer, stream.batch(index, view="eval"))
            inputs = unpack(batch, stream.batch_keys, takes_names(module.forward))[0]
            self._probe = stream.task_index, inputs
        return self._probe[1]

    def _features(self, module: nn.Module, inputs: Any, weights: Mapping[str, Tensor]) -> Tensor:
        """``(N, D)`` what reaches the head with these weights in the place of the module's own."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            return torch.func.functional_call(module, dict(weights), args, kwargs)

        with layer_input(self._layer) as given:
            call_with(forward, inputs)
        features = pooled(self._layer, given[-1])
        return features.flatten(1, -2).mean(1) if features.ndim > 2 else features

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep nothing of the module and its data."""
        self._units, self._layer, self._probe = {}, None, None  # type: ignore[assignment]

    def report_facts(self) -> dict[str, Any]:
        """One list for each measure, an entry a measurement, beside the batches and tasks; NaN: not measured then."""
        if not self._rows:
            return {}
        names = ("batch", "task", *MEASURES)
        return {"every": self.every, "series": {name: [row[name] for row in self._rows] for name in names}}

    def state_dict(self) -> dict[str, Any]:
        """All that was measured."""
        return {"version": 1, "batches": self._batches, "rows": [dict(row) for row in self._rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on measuring."""
        self._batches, self._rows = int(state_dict["batches"]), [dict(row) for row in state_dict["rows"]]


def _norm(tensors: list[Tensor]) -> float:
    """The Euclidean length of all values together; NaN without a tensor."""
    return float(torch.stack([t.norm().double() for t in tensors]).norm()) if tensors else math.nan
