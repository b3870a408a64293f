"""Start dormant units anew: incoming weights as at the beginning, outgoing weights zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.namespace import rank_zero_warn
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.distributed import all_sum, send_from_first_process
from lightning_cl.nn.parameter_versions import Remembered, written
from lightning_cl.nn.plasticity import dormant_units
from lightning_cl.nn.units import UnitLink, makers, restart_units_, unit_activity, unit_links
from lightning_cl.training import MethodModule, Step
from lightning_cl.training.evaluation_mode import evaluating
from lightning_cl.training.step_seed import generator_of
from lightning_cl.training.task_data import first_rows
from lightning_cl.training.transfer import samples_at


class UnitRestart(MethodModule):
    """Counts optimiser steps, and looks after every so many which units answer to the batch."""

    read_by: Tensor

    def __init__(self, module: nn.Module, threshold: float, every: int) -> None:
        super().__init__()
        self.threshold, self.every, self.made, self.restarted = threshold, every, Counter(), Counter()
        self.layers = tuple(makers(module))
        # Of each layer the place of the one that reads its units and the columns of a unit; 0 columns: no such layer.
        self.register_buffer("read_by", torch.zeros(len(self.layers), 2, dtype=torch.long))
        self._links = Remembered[list[UnitLink]]()
        self._dormant: list[Tensor] = []

    def start_task(self, module: Any, task: Any) -> None:
        """Before the first task, find the units that can be started anew, on eight samples."""
        if task.index > 0:
            return
        inputs, _ = samples_at(module, module.trainer.datamodule.layout.train_index[0][:8])
        with evaluating(module):
            links = unit_links(module, lambda weights: Step(module, None).look(inputs, weights).raw_logits)
        for link in links:
            self.read_by[self.layers.index(link.maker)] = torch.tensor([self.layers.index(link.reader), link.columns])
        send_from_first_process([self.read_by])
        if not links:
            rank_zero_warn(
                f"{type(module).__name__} has no layer whose units only one other layer reads, so DormantReset resets "
                "nothing; leave it out."
            )

    @property
    def links(self) -> list[UnitLink]:
        """The units that can be started anew."""
        return self._links.get(written(self.read_by), self._read)

    def _read(self) -> list[UnitLink]:
        found = zip(self.layers, self.read_by.tolist(), strict=True)
        return [UnitLink(maker, self.layers[reader], each) for maker, (reader, each) in found if each]

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Before a step after which it is time: which units are dormant on the stream's samples of all processes."""
        if (self.made.value + 1) % self.every == 0:
            module = step.module
            real = int(module.trainer.datamodule.train_batch(module.trainer.fit_loop.batch_idx).real)
            inputs = first_rows(step.inputs, max(real, 1))
            sums = unit_activity(module, self.links, lambda: step.look(inputs))
            joint = [all_sum(found * (real > 0)) for found in sums]
            self._dormant = [dormant_units(found[:-1] / found[-1], self.threshold) for found in joint]
        return {}

    def after_step(self, module: Any, optimizer: Any) -> None:
        """Start them anew."""
        self.made.set(self.made.value + 1)
        dormant, self._dormant = self._dormant, []
        for place, (link, which) in enumerate(zip(self.links, dormant, strict=False)):
            units = which.nonzero().flatten()
            if len(units):
                generator = generator_of(module, 0xD0, self.made.value, place)
                restart_units_(module, link, units, generator, optimizer.state)
                self.restarted.set(self.restarted.value + len(units))


@dataclass(eq=False)
class DormantReset(ContinualMethod):
    """Recycling dormant units (ReDo; Sokar et al., ICML 2023, arXiv:2302.12902), against the loss of plasticity.

    After every ``every`` optimiser steps a unit with ``a_u / mean(a) <= threshold`` is started anew, ``a_u`` the mean
    of its ``|output|`` over the stream's samples of the batch in eval mode: its incoming weights and bias are drawn as
    PyTorch draws them, its outgoing weights become 0, and so do the optimiser's moments of both. So the network's
    answer changes by no more than what the dormant unit said. Units are those of linear layers and convolutions that
    only one other reads (hidden layers of perceptrons, of the MLPs in transformers, of plain convolutional networks);
    units that a residual connection passes on are left alone. Works on any module with a class head; needs
    no boundaries. It costs a pass over a batch every ``every`` steps.

    Args:
        threshold: At least 0; the paper tried 0 to 0.1.
        every: Optimiser steps, at least 1; 1000 is the paper's, for runs of many thousand steps.

    Raises:
        ValueError: If a number is out of its range.
    """

    state_key: ClassVar[str] = "lightning_cl.DormantReset"
    needs_automatic: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"every": 3, "threshold": 0.5}

    threshold: float = at_least(0, default=0.025)
    every: int = at_least(1, default=1000)

    def build(self, pl_module: Any, info: Any) -> UnitRestart:
        """Counters, and room for which layer reads which."""
        return UnitRestart(pl_module, self.threshold, self.every)
