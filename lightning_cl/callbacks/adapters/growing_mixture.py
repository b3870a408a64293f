"""Mixtures of adapters with a number of their own in each layer, of which the newest learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_cl.nn.adapters import AdapterMixture, Adapters
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.load_hooks import after_load
from lightning_cl.training import MethodModule
from lightning_cl.training.loss_terms import zero_through

#: Which layers' newest adapters learn, where it is not one of them.
NONE, ALL = -1, -2


class GrowingMixture(MethodModule):
    """How many adapters each layer has, and which of them learn.

    Args:
        early: Adapters that learn until something is added; ``None``: there are none.
        layers: With one :class:`AdapterMixture` each.

    Attributes:
        learner: The layer whose newest adapter learns, ``NONE`` or ``ALL``.
        part: Of the task's epochs, the one that has begun.
        complete: Whether nothing more is added in this task.
    """

    def __init__(self, early: Adapters | None, layers: Sequence[Adapters]) -> None:
        super().__init__()
        self.early, self.layers = early, nn.ModuleList(layers)
        self._counts = nn.ModuleList(Counter(1) for _ in layers)
        self._grown = nn.ModuleList(Counter() for _ in layers)
        self.learner, self.part, self.complete = Counter(ALL), Counter(), Counter()
        after_load(self, "choose")
        self.choose()

    @property
    def banks(self) -> list[AdapterMixture]:
        """One a layer."""
        return [next(iter(adapters)) for adapters in self.layers]  # type: ignore[call-overload]

    @property
    def counts(self) -> list[Counter]:
        """How many adapters each layer has."""
        return list(self._counts)  # type: ignore[arg-type]

    @property
    def grown(self) -> list[Counter]:
        """Whether each layer has grown in this task."""
        return list(self._grown)  # type: ignore[arg-type]

    def keep_means(self, kept: bool) -> None:
        """Let the banks keep the mean tokens that reach them, or no longer."""
        for bank in self.banks:
            bank.keeps_mean = kept

    # ------------------------------------------------------------------ growth

    def may_grow(self, index: int) -> bool:
        """Whether a layer has room, and has not grown in this task."""
        return not self.grown[index].value and self.counts[index].value < self.banks[index].slots

    def grow(self, index: int) -> None:
        """Add an adapter to a layer, which learns alone."""
        self.counts[index].set(self.counts[index].value + 1)
        self.grown[index].set(1)
        self.learner.set(index)
        self.choose()

    def begin_task(self) -> None:
        """Nothing has grown in it yet."""
        for grown in self.grown:
            grown.set(0)
        self.complete.set(0)

    def learn_newest(self) -> None:
        """The newest adapter of every layer learns; early ones where each has one."""
        self.learner.set(ALL)
        self.choose()

    def learn_nothing(self) -> None:
        """No adapter learns."""
        self.learner.set(NONE)
        self.choose()

    # ------------------------------------------------------------------ what learns

    def learning_layers(self) -> list[int]:
        """Layers whose newest adapter learns."""
        chosen = self.learner.value
        return [index for index in range(len(self.layers)) if chosen in (index, ALL)]

    def choose(self) -> None:
        """Let all adapters of a layer answer, and those learn that are to."""
        for adapters, learning, count, _ in self._slots():
            adapters.select(range(count))
            adapters.learn(*learning)

    def _slots(self) -> Iterator[tuple[Adapters, tuple[int, ...], int, tuple[int, ...]]]:
        """All adapters, which slots of them learn, how many answer, and which one may be added in this task."""
        if self.early is not None:
            first = self.learner.value == ALL and all(count.value == 1 for count in self.counts)
            yield self.early, (0,) if first else (), 1, ()
        learning, scanned = self.learning_layers(), self.learner.value != ALL
        for index, (adapters, count) in enumerate(zip(self.layers, self.counts, strict=True)):
            assert isinstance(adapters, Adapters)
            newest, room = count.value - 1, scanned and self.may_grow(index)
            yield adapters, (newest,) if index in learning else (), count.value, (newest + 1,) if room else ()

    def trains_now(self) -> bool:
        """Where something was added; in the first part of a task in any case, the head alone then."""
        return self.learner.value != NONE or (self.part.value == 0 and not any(g.value for g in self.grown))

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Leave layers out of the step where nothing learns."""
        for adapters, learning, _, _ in self._slots():
            if not learning:
                for parameter in adapters.parameters():
                    parameter.grad = None

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """All adapters but those that learn, or may be added in this task."""
        for adapters, learning, _, room in self._slots():
            yield from adapters.protected(learning or room)

    def idle(self, module: Any) -> dict[str, Tensor]:
        """A zero through all adapters: DDP waits for a gradient of each."""
        if module.trainer.world_size == 1:
            return {}
        return {"idle": zero_through(self.parameters(), module.device)}
