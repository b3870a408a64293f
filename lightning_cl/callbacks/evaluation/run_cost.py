"""Measure what a run costs: time, images through the network, memory, and the latency of a prediction."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.base import ContinualCallback, require_stream
from lightning_cl.callbacks.evaluation.cost_counts import (
    counted_layer,
    device_name,
    leaves,
    memory_facts,
    rows_of,
    stored_bytes,
)
from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.callbacks.evaluation.silent_evaluation import SilentEvaluation
from lightning_cl.callbacks.evaluation.task_identity import is_told
from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.datamodules.stream_plan import EvalBatch
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.namespace import LightningModule, RunningStage, Trainer, is_overridden
from lightning_cl.training.batch import unpack

_COUNTS = ("forward_samples", "backward_samples", "evaluated_samples")
_TIMES = ("seconds", "seconds_evaluating")


class RunCost(ContinualCallback):
    """Measures what a run costs, for the report's ``facts``; what is learned does not change.

    - ``seconds``: the fit by the clock, evaluations included; ``seconds_evaluating``: those alone. A run that was
      stopped and continued counts what led to its checkpoints.
    - ``forward_samples``, ``backward_samples``: images that went through the network in training, every pass counted
      (a method with a query pass makes two of a sample), and those of them whose loss was back-propagated.
      ``evaluated_samples``: images that went through it in evaluations. All processes together; padding that a process
      computes is counted, since it costs.
    - ``latency_ms``: milliseconds for one image, from a batch in main memory to its logits, one image at a time and in
      a full evaluation batch; median of repeats on the first training images, after a warm-up.
    - ``model_bytes``: parameters and buffers at the end, what is shared counted once. ``memory_samples``,
      ``memory_bytes``: what methods keep of the data. ``stored_bytes``: both (the cost model of arXiv:2302.03648, with
      the real size of every element): an image takes height x width x channels bytes at the network's resolution.

    Times are those of the machine, which ``device`` names: compare them within one machine only.

    Args:
        latency: Measure the latency.
        repeats: Timed passes per batch size.
        layer: Dotted path of the layer whose calls are passes through the network; by default one in the last block of
            a timm ``VisionTransformer`` or the first layer of CLIP's image tower, else the first layer with parameters
            that is called in a step with numbers that are not whole.
        head: Dotted path of the layer that makes the class logits; found when ``None``.

    Raises:
        ValueError: For ``repeats`` below 1; in ``setup`` without a stream; when training starts if there is no such
            ``layer``.
    """

    state_key = "lightning_cl.RunCost"

    def __init__(
        self, latency: bool = True, repeats: int = 10, layer: str | None = None, head: str | None = None
    ) -> None:
        if repeats < 1:
            raise ValueError(f"`repeats` is {repeats}; give a number of passes of at least 1.")
        self.latency, self.repeats, self.layer, self.head = latency, repeats, layer, head
        self._facts: dict[str, Any] = {}
        self._reset()

    def _reset(self) -> None:
        self._total = dict.fromkeys(_COUNTS, 0)  # of all processes, up to the last time they were added up
        self._own = dict.fromkeys(_COUNTS, 0)  # of this process, since then
        self._times = dict.fromkeys(_TIMES, 0.0)
        self._since: dict[str, float] = {}
        self._pending = 0
        self._processes = 1
        self._facts = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start at zero; a checkpoint's counts are put in place afterwards."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._reset()
            self._processes = trainer.world_size
        self._hooks: list[Any] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and listen at the network's entrance."""
        self._start("seconds")
        self._listen(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock, add up over the processes, and measure the latency and the memory."""
        self._stop("seconds")
        self._forget_hooks()
        self._add_up(trainer)
        self._facts = self._measure(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop the clock; the report of an interrupted run has the counts."""
        for name in _TIMES:
            self._stop(name)
        self._forget_hooks()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module as it was."""
        self._forget_hooks()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time an evaluation."""
        self._start("seconds_evaluating")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop; all processes are here, so their counts are added up."""
        self._stop("seconds_evaluating")
        if trainer.state.fn == "fit":
            self._add_up(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """What a step did not back-propagate is not waited for."""
        self._pending = 0

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """The passes since the last time are back-propagated now."""
        self._own["backward_samples"] += self._pending
        self._pending = 0

    def _listen(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._forget_hooks()
        watched = counted_layer(pl_module, self.layer)
        if watched is not None:
            self._count(trainer, watched)
            return

        def found(layer: nn.Module, args: Any) -> None:
            if rows_of(args):
                self._forget_hooks()
                self._count(trainer, layer)
                self._passed(trainer, rows_of(args))  # a hook that is added in a call does not see it

        self._hooks = [leaf.register_forward_pre_hook(found) for leaf in leaves(pl_module)]

    def _count(self, trainer: Trainer, layer: nn.Module) -> None:
        self._hooks = [layer.register_forward_pre_hook(lambda _, args: self._passed(trainer, rows_of(args)))]

    def _passed(self, trainer: Trainer, rows: int) -> None:
        training = trainer.state.stage == RunningStage.TRAINING
        self._own["forward_samples" if training else "evaluated_samples"] += rows
        if training and torch.is_grad_enabled():
            self._pending += rows

    def _forget_hooks(self) -> None:
        for hook in self.__dict__.get("_hooks", ()):
            hook.remove()
        self._hooks = []

    def _add_up(self, trainer: Trainer) -> None:
        counts = torch.tensor([self._own[name] for name in _COUNTS], device=trainer.strategy.root_device)
        summed: Tensor = trainer.strategy.reduce(counts, reduce_op="sum")
        for name, count in zip(_COUNTS, summed.tolist(), strict=True):
            self._total[name] += count
            self._own[name] = 0

    def _start(self, name: str) -> None:
        self._since[name] = time.monotonic()

    def _stop(self, name: str) -> None:
        if name in self._since:
            self._times[name] += time.monotonic() - self._since.pop(name)

    def _so_far(self) -> dict[str, Any]:
        """Times and counts; since the last evaluation the other processes are taken to have counted like this one."""
        running = {name: time.monotonic() - since for name, since in self._since.items()}
        times = {name: value + running.get(name, 0.0) for name, value in self._times.items()}
        return {**times, **{name: self._total[name] + self._own[name] * self._processes for name in _COUNTS}}

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        stream = require_stream(trainer, type(self).__name__)
        images = unpack(stream.batch(torch.zeros(1, dtype=torch.long), view="eval"), stream.batch_keys)[0]
        image_bytes = int(images[0].numel())
        others = [c.report_facts() for c in callbacks_of(trainer) if isinstance(c, ContinualCallback) and c is not self]
        samples, memory = memory_facts(others, image_bytes)
        model = stored_bytes((*pl_module.parameters(), *dict(pl_module.named_buffers()).values()))
        facts = {
            "processes": trainer.world_size,
            "device": device_name(trainer.strategy.root_device),
            "image_bytes": image_bytes,
            "memory_samples": samples,
            "memory_bytes": memory,
            "model_bytes": model,
            "stored_bytes": model + memory,
        }
        if self.latency and is_overridden("validation_step", pl_module):
            sizes = sorted({1, min(stream.eval_batch_size, len(stream.source.train_labels))})
            facts["latency_ms"] = {str(size): self._latency(trainer, pl_module, stream, size) for size in sizes}
        return facts

    def _latency(self, trainer: Trainer, pl_module: LightningModule, stream: ContinualDataModule, size: int) -> float:
        index = torch.arange(size)
        labels = stream.source.train_labels[index]
        samples = EvalBatch(index, labels, torch.zeros_like(labels))
        batch = stream.batch(index, view="eval")
        capture = HeadCapture(pl_module, stream.info.num_classes, self.head)
        told = 0 if is_told(stream, pl_module) else None  # any task: each costs the same
        taken = []
        with SilentEvaluation(trainer, pl_module, capture) as evaluation:
            for _ in range(2 + self.repeats):
                begun = time.perf_counter()
                evaluation.logits(batch, 0, size, samples=samples, task=told).cpu()  # waits for the device
                taken.append(time.perf_counter() - begun)
        return 1e3 * statistics.median(taken[2:]) / size  # the first ones warm up

    def report_facts(self) -> dict[str, Any]:
        """Times and counts, and at the end of a run latency and memory."""
        return {**self._so_far(), **self._facts} if self._times["seconds"] or self._since else {}

    def state_dict(self) -> dict[str, Any]:
        """Times and counts so far."""
        return {"version": 1, **self._so_far()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._times = {name: float(state_dict[name]) for name in _TIMES}
        self._total = {name: int(state_dict[name]) for name in _COUNTS}
