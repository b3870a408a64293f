"""What a continual LightningModule knows besides its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_cl.datamodules.batch_form import BatchKeys
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.nn.guard import Guard
from lightning_cl.nn.masks import ClassMask
from lightning_cl.training.memory import Memory
from lightning_cl.training.method_module import MethodModule
from lightning_cl.training.step import HeadCall, Step, TokenCall
from lightning_cl.training.task_choice import TaskChoice

#: Which classes compete in the training loss: those of the current batch or task, all seen so far, or all.
TrainMask = Literal["batch", "task", "seen", "all"]
STRICTNESS: tuple[TrainMask, ...] = ("all", "seen", "task", "batch")
#: An entry beside the methods' state. A module without them reports it among the keys that it does not know.
HINT = "open this with lightning_cl.restore(checkpoint, model, callbacks)"


def _add_hint(module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: Any) -> None:
    state_dict[prefix + HINT] = torch.empty(0)


def _drop_hint(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    state_dict.pop(prefix + HINT, None)


class ContinualState(nn.Module):
    """What :class:`ContinualMixin` knows; the module's one extra attribute ``continual``, so that no name collides.

    Attributes:
        mask: Class mask on the head; without a head it has no outputs.
        auxiliary: There are other heads, whose logits are masked, too.
        answer: What a method made in place of the head's logits in this pass, until another head takes it over.
        tokens: A call of the head for every token in this pass, until the network has chosen one.
        parts: The methods' modules, by name.
        info: The stream.
        head_path: Dotted path of the head; ``None``: no method needs one, and none was found.
        train_mask: Which classes compete in the training loss.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.
        memory: Samples that come again; with one, ``train_mask="task"`` is read as ``"seen"``.
        replays: Samples of earlier tasks come with the stream's own batches, which is read as a memory is.
        methods: ``state_key`` of every attached method, in order.
        configs: For each of them the name of its class and its arguments, if these are plain values.
        guards: Slices that must not move in the current task.
        loss_terms: Terms of the current training step, by name.
        last_terms: Values of the last step's terms.
        step: The current training step.
        choice: Which task's part of the module answers.
        calls: Where calls of the head are recorded; ``None``: nowhere.
        raw: See :meth:`recording`.
        outputs: What watched layers gave since the last call of the head, by name.
        own_parameters: Names of the parameters that the user's module had before any method.
        own_buffers: Names of the buffers that it had.
        trained_parameters: Those of the parameters that the methods left trainable.
        batch_keys: Places of inputs and targets in a batch, if the user named them.
        takes_names: The module's ``forward`` takes its inputs by their names only.
        grown: Shape in the checkpoint of every tensor that has grown since, with the stream.
    """

    def __init__(self, info: StreamInfo) -> None:
        super().__init__()
        self.register_state_dict_post_hook(_add_hint)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_drop_hint)  # type: ignore[no-untyped-call]
        self.mask = ClassMask(0)
        self.parts = nn.ModuleDict()
        self.auxiliary = False
        self.answer: Tensor | None = None
        self.tokens: TokenCall | None = None
        self.info = info
        self.head_path: str | None = None
        self.train_mask: TrainMask = "all"
        self.reset_optimizer = False
        self.memory: Memory | None = None
        self.replays = False
        self.methods: list[str] = []
        self.configs: list[dict[str, Any]] = []
        self.guards: list[Guard] = []
        self.loss_terms: dict[str, Tensor] = {}
        self.last_terms: dict[str, Tensor] = {}
        self.step: Step | None = None
        self.choice = TaskChoice()
        self.calls: list[HeadCall] | None = None
        self.raw = False
        self.outputs: dict[str, Any] = {}
        self._old_classes: tuple[int, Tensor | None] = (-1, None)
        self.own_parameters: frozenset[str] = frozenset()
        self.own_buffers: frozenset[str] = frozenset()
        self.trained_parameters: frozenset[str] = frozenset()
        self.batch_keys: BatchKeys | None = None
        self.takes_names = False
        self.grown: dict[str, torch.Size] = {}

    @property
    def ordered_parts(self) -> list[MethodModule]:
        """The methods' modules: those that make the logits before those that change them."""
        return sorted(self.parts.values(), key=lambda part: (not part.makes_logits, part.comes_last))  # type: ignore[arg-type]

    @property
    def task(self) -> int | None:
        """The task that methods answer for which keep something for each; set it to predict outside of a Trainer.

        Raises:
            ValueError: When set, if the stream has no such task.
        """
        return self.choice.known

    @task.setter
    def task(self, task: int | None) -> None:
        self.choice.name(task, self.info.num_tasks)

    @contextmanager
    def recording(self, raw: bool = False) -> Iterator[list[HeadCall]]:
        """Record the calls of the head in a list of their own.

        Args:
            raw: A head that answers for every token may leave methods and mask out: nobody reads the network's answer.
        """
        before, calls = (self.calls, self.raw, self.outputs), list[HeadCall]()
        self.calls, self.raw, self.outputs = calls, raw, {}
        try:
            yield calls
        finally:
            self.calls, self.raw, self.outputs = before

    def record(self, call: HeadCall) -> None:
        """Record a call of the head where calls are recorded, with what the watched layers gave before it."""
        if self.calls is not None:
            self.calls.append(call._replace(outputs=self.outputs))
            self.outputs = {}

    def old_classes(self, task: Any, device: torch.device) -> Tensor | None:
        """``(n,)`` ids of the classes seen before ``task``; ``None``: there are none. Made once a task."""
        if self._old_classes[0] != task.index:
            old = task.old_classes
            self._old_classes = task.index, torch.tensor(old, device=device) if old else None
        return self._old_classes[1]
