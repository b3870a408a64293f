"""Experience replay: a memory of earlier samples that comes along with every batch."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lightning_cl.callbacks.arguments import check_choice, choice
from lightning_cl.callbacks.base import ContinualMethod, require_stream
from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.datamodules.sources.boxes import BoxSource
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.mixins.base import ContinualMixin, TrainMask
from lightning_cl.mixins.replay import ReplayMixin
from lightning_cl.namespace import LightningModule, Trainer, is_overridden, rank_zero_warn
from lightning_cl.nn.replay import (
    ClassBalanced,
    GreedyBalanced,
    Herding,
    Policy,
    ReplayBuffer,
    Reservoir,
    Ring,
    SampleImportance,
)
from lightning_cl.training.memory import Memory

if TYPE_CHECKING:
    from lightning_cl.datamodules import ContinualDataModule, StreamInfo

ReplayPolicy = Literal["reservoir", "class_balanced", "ring", "greedy"]
ReplayStore = Literal["index", "sample"]
#: Policies that need no argument.
_POLICIES: dict[str, type[Policy]] = {"reservoir": Reservoir, "class_balanced": ClassBalanced, "greedy": GreedyBalanced}
_POLICIES |= {"herding": Herding, "importance": SampleImportance}


@dataclass(eq=False)
class ExperienceReplay(ContinualMethod):
    """Experience replay (ER; Chaudhry et al., arXiv:1902.10486): remembered samples join every training batch.

    Alone it is the baseline that every method without a memory should be compared with; it also joins any method that
    trains by gradient descent, in any order: ``callbacks=[DualPrompt(), ExperienceReplay(memory_size=2000)]``.

    Every optimiser step draws ``batch_size`` remembered samples anew, without replacement, and puts them behind the
    stream's, in the form of the user's own batches. Samples are offered to the memory after the last update on their
    batch and, where a task has several epochs, in its first. Sizes are those of all processes together; all of them
    hold the same memory, and a result does not depend on how many there are.

    Since old classes are among the samples, ``train_mask="task"`` of any method is read as ``"seen"``. A stream without
    classes (regression, boxes by domain) is repeated to a module without a class head, too, and so are the images of a
    ``BoxSource`` in ``MultiLabelIncremental`` with ``store="sample"``: they come again with the boxes that they had in
    their task.

    Args:
        memory_size: Slots of the memory.
        batch_size: Remembered samples in every training batch, over all processes; fewer while the memory fills.
        policy: ``"reservoir"``: a uniform sample of the stream; ``"class_balanced"``: as many of each class as the
            stream allows (CBRS); ``"ring"``: the latest of each class, in equal shares; ``"greedy"``: the first of each
            class, in equal shares of the classes seen (GDumb).
        store: ``"index"``: positions in the training data, from which samples are read and augmented anew; with
            ``num_workers`` by a worker process during the step before, where it can be told by then which they are, and
            else by the main process; ``"sample"``: the samples as the model got them, which are not augmented again and
            cost no reading.
        device: Where samples are stored, for example ``"cuda"``; the CPU by default.

    Raises:
        ValueError: For a size below 1, a memory smaller than its batch, or an unknown policy or store; in ``setup``,
            without a stream, beside another memory or a method that does not train the head, for a ring without a slot
            for each class, or if the stream has a hook that keeps the samples from joining; in training, if labels are
            not class ids or a part of a batch has not one row per sample.
    """

    state_key: ClassVar[str] = "lightning_cl.ExperienceReplay"
    needs_forward: ClassVar[bool] = False
    mixin: ClassVar[type[ContinualMixin]] = ReplayMixin
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 5}
    #: Memory batches join the stream's; else the method draws them for itself.
    joins: ClassVar[bool] = True
    #: A step draws ``batch_size`` different samples; else it reads all of the memory in passes of that size.
    draws: ClassVar[bool] = True
    #: Samples are offered to the memory after the step on their batch; else the method puts them into it.
    remembers_batches: ClassVar[bool] = True
    policies: ClassVar[Any] = ReplayPolicy  #: That there is a choice of, where ``policy`` is an argument.
    #: The method answers by what the memory holds of each class.
    needs_every_class: ClassVar[bool] = False
    #: The method's paper has every sample once.
    one_pass: ClassVar[bool] = False
    #: Samples can be read from the memory; else it holds only what is kept beside them, known after a pass.
    keeps_samples: ClassVar[bool] = True
    bytes_kept: ClassVar[int] = 0  #: Of the numbers that the method keeps beside each sample.

    memory_size: int = 500
    batch_size: int = 32
    policy: ReplayPolicy = "reservoir"
    store: ReplayStore = choice(ReplayStore, default="index")
    device: str | None = None
    _: KW_ONLY
    train_mask: TrainMask = "seen"

    def __init_subclass__(cls, **options: Any) -> None:
        """What builds a part of its own on replay reads the logits of what it draws, unless it says otherwise."""
        super().__init_subclass__(**options)
        if "needs_forward" not in vars(cls) and "build" in vars(cls):
            cls.needs_forward = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.memory: Memory | None = None
        self._stream_hash: str | None = None
        self._classes = True
        for name, size in (("memory_size", self.memory_size), ("batch_size", self.batch_size)):
            if size < 1:
                raise ValueError(f"`{name}` is {size}; give a number of samples of at least 1.")
        if self.draws and self.memory_size < self.batch_size:
            raise ValueError(
                f"a memory of {self.memory_size} samples cannot fill a batch of {self.batch_size} different ones; give "
                f"`memory_size={self.batch_size}` or more, or `batch_size={self.memory_size}` or less."
            )
        if "policy" in vars(self):
            check_choice(self, "policy", self.policies)
        if self.store == "index" and self.device is not None:
            raise ValueError(
                f'`device={self.device!r}` says where samples are stored, but `store="index"` stores none; set '
                '`store="sample"`, or leave `device` out.'
            )

    @property
    def needs_head(self) -> bool:  # type: ignore[override]
        """A stream without classes, or of boxes, is repeated as it is, also to a module without a class head."""
        return self._classes or type(self) is not ExperienceReplay

    # ------------------------------------------------------------------ life cycle

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the other methods, attach, and start with an empty memory unless this fit continues an earlier one."""
        stream = require_stream(trainer, type(self).__name__)
        self._check_company(trainer, stream)
        if self.one_pass and stage == "fit":
            self._tell_of_epochs(max(stream.planned.epochs))
        self._classes = stream.source.has_classes and not isinstance(stream.source, BoxSource)
        super().setup(trainer, pl_module, stage)
        continued = trainer.current_epoch > 0 and self._stream_hash == stream.info.fingerprint
        if self.memory is None or (stage == "fit" and not continued):
            self.memory = self._empty(stream.info)
            self.memory.buffer.generator.manual_seed(mix_seed(stream.seed, 0x5E91A7))
        self._stream_hash = stream.info.fingerprint
        assert isinstance(pl_module, ReplayMixin)
        pl_module.configure_replay(self.memory)

    def _check_company(self, trainer: Trainer, stream: ContinualDataModule) -> None:
        memories = [type(c).__name__ for c in callbacks_of(trainer) if isinstance(c, ExperienceReplay)]
        if len(memories) > 1:
            raise ValueError(
                f"{' and '.join(memories)} each keep a memory of earlier samples, but a module has one; use one of "
                "them."
            )
        idle = [type(c).__name__ for c in callbacks_of(trainer) if isinstance(c, ContinualMethod) and not c.trains]
        if idle:
            raise ValueError(
                f"{type(self).__name__} repeats samples for training by gradient descent, but {' and '.join(idle)} "
                "makes the answers without it, so nothing would be trained; use one or the other."
            )
        if stream.source.sequential and self.store == "index":
            raise ValueError(
                f"{type(self).__name__} fetches remembered samples by their position, but "
                f'{type(stream.source).__name__} is read from its start to its end; set `store="sample"`.'
            )
        if isinstance(stream.source, BoxSource) and self.store == "index":
            raise ValueError(
                f"{type(self).__name__} reads remembered images anew, but {type(stream.source).__name__} shows each "
                'task the boxes of its own classes alone; set `store="sample"`, which keeps an image with those of its '
                "task."
            )
        hook = "on_after_batch_transfer"
        if is_overridden(hook, stream) and hook not in vars(stream):  # else of a wrapped data module, which joins first
            raise ValueError(
                f"{type(stream).__name__} overrides `on_after_batch_transfer`, and Lightning then leaves out the "
                "module's, where replay joins its samples; move the hook into the LightningModule."
            )

    def _tell_of_epochs(self, epochs: int) -> None:
        """Warn of what several epochs mean for a method that is made for one pass."""
        if epochs > 1:
            rank_zero_warn(
                f"{type(self).__name__} is made for one pass over the stream, but a task has {epochs} epochs: its "
                "samples enter the memory in the first, and all of them are read again in the others, so this is no "
                "online result; set `epochs_per_task=1`."
            )

    def attach(self, pl_module: LightningModule, info: StreamInfo) -> None:
        """Give the module an empty memory; see :class:`ContinualMethod`."""
        self.memory = self._empty(info)
        super().attach(pl_module, info)
        assert isinstance(pl_module, ReplayMixin)
        pl_module.configure_replay(self.memory)

    def _empty(self, info: StreamInfo) -> Memory:
        if self.needs_every_class and self.memory_size < info.num_classes:
            raise ValueError(
                f"{type(self).__name__} needs a sample of each of the {info.num_classes} classes in its memory, but "
                f"`memory_size` is {self.memory_size}; give at least {info.num_classes}."
            )
        return Memory(
            ReplayBuffer(self.memory_size, self._policy(info.num_classes), self.device),
            self.batch_size,
            self.store == "index",
            self.joins,
        )

    def _policy(self, num_classes: int) -> Policy:
        if self.policy != "ring":
            return _POLICIES[self.policy]()
        if self.memory_size < num_classes:
            raise ValueError(
                f'`policy="ring"` needs a slot for each of the {num_classes} classes, but `memory_size` is '
                f"{self.memory_size}; give at least {num_classes}, or another policy."
            )
        return Ring(num_classes)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Offer the stream's samples to the memory."""
        assert isinstance(pl_module, ReplayMixin)
        if self.remembers_batches:
            pl_module.remember(batch_idx)

    # ------------------------------------------------------------------ state and report

    def state_dict(self) -> dict[str, Any]:
        """The memory with its generator; the same on all processes, so also for another number of them."""
        state = {"version": 1} if self.memory is None else self.memory.state_dict()
        return state if self._classes else {**state, "classes": False}

    def prepare_restore(self, state: dict[str, Any]) -> None:
        """Whether the stream had classes."""
        self._classes = state.get("classes", True)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a saved memory."""
        if self.memory is not None and "buffer" in state_dict:
            self.memory.load_state_dict(state_dict)

    def report_facts(self) -> dict[str, Any]:
        """Samples and bytes in the memory, and what they are: positions need the training data besides."""
        if self.memory is None:
            return {}
        buffer = self.memory.buffer
        stored = "positions in the training data" if self.memory.by_index else "samples"
        stored = stored if self.keeps_samples else "activations"
        facts = {"stored_samples": len(buffer), "stored_bytes": self.memory.nbytes, "stored_as": stored}
        beside = self.memory.bytes_beside
        return {**facts, "stored_bytes_beside": beside} if beside else facts

    def bytes_beside(self, pl_module: Any) -> int:
        """Bytes that are kept beside each sample and its label (its logits, say), of a module with this method."""
        return self._policy(pl_module.continual.info.num_classes).bytes_per_slot + self.bytes_kept

    def bytes_within(self, pl_module: Any) -> int:
        """Bytes that a module with this method keeps in its buffers for each slot of the memory."""
        return 0


@dataclass(eq=False)
class OwnBatchReplay(ExperienceReplay):
    """Base of methods that draw batches of the memory for themselves; how it stores is given by keyword alone."""

    joins: ClassVar[bool] = False

    _: KW_ONLY
    policy: ReplayPolicy = "reservoir"
    store: ReplayStore = "index"
    device: str | None = None
