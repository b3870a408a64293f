"""Callbacks with task hooks, and the base of all methods."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lightning_cl.callbacks.arguments import check_fields, plain
from lightning_cl.callbacks.combination import check_combination
from lightning_cl.callbacks.label_kinds import check_labels_of_method
from lightning_cl.callbacks.module_kind import check_module
from lightning_cl.callbacks.stream_kind import Boundaries, StreamKind, check_stream_kind
from lightning_cl.datamodules.stream_identity import refuse_other_stream
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.mixins.base import STRICTNESS, ContinualMixin, ContinualState, TrainMask, method_names
from lightning_cl.namespace import BaseFinetuning, Callback, LightningModule, Trainer, rank_zero_warn
from lightning_cl.nn.adapters import FrozenBackbone
from lightning_cl.nn.extension import extend
from lightning_cl.nn.weights import Snapshot
from lightning_cl.training.method_module import MethodModule

if TYPE_CHECKING:
    from lightning_cl.datamodules import ContinualDataModule, StreamInfo, Task


class ContinualCallback(Callback):
    """A callback that knows tasks.

    ``on_task_start`` fires before the first batch of a task's first epoch. ``on_task_end`` fires after the last batch
    of its last epoch and **before** the validation of that epoch.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there is a stream."""
        require_stream(trainer, type(self).__name__)

    def on_task_start(self, trainer: Trainer, pl_module: LightningModule, task: Task) -> None:
        """Called before the first batch of ``task``, and before fresh optimisers are built."""

    def on_task_end(self, trainer: Trainer, pl_module: LightningModule, task: Task) -> None:
        """Called after the last batch of ``task``, before the boundary is evaluated."""

    def on_exposure(self, trainer: Trainer, pl_module: LightningModule, classes: tuple[int, ...]) -> None:
        """Called in an online stream before the first batch that holds a new class; ``classes``: all exposed so far."""

    def report_facts(self) -> dict[str, Any]:
        """List what a report tells of this callback besides its configuration, as plain values; nothing by default."""
        return {}


@dataclass(eq=False)
class ContinualMethod(ContinualCallback):
    """A continual-learning method: its configuration and life cycle.

    ``attach`` does all of the installing and needs no Trainer, so a trained model can be rebuilt for inference. What
    a step does differently is in the method's mixin; parameters and mathematics are in ``lightning_cl.nn``.

    Args:
        head: Dotted path of the layer that makes the class logits, e.g. ``"net.fc"``; found when ``None``.
        train_mask: Which classes compete in the training loss: those of the current ``"task"``, all ``"seen"``, or
            ``"all"``, or only those of the current ``"batch"``. Evaluation always masks classes not yet seen.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.
    """

    state_key: ClassVar[str]
    #: Arguments with which the conformance suite runs the method on models of a few thousand weights.
    small: ClassVar[dict[str, Any]] = {}
    #: Which modules of the conformance suite it works on: ``"vit"``, or ``"clip"`` for models of open_clip.
    family: ClassVar[str] = "vit"
    mixin: ClassVar[type[ContinualMixin]] = ContinualMixin  #: What the module becomes.
    adds_loss: ClassVar[bool] = False  #: It adds terms to the loss, which manual optimisation does not let it do.
    needs_automatic: ClassVar[bool] = False  #: It makes a step's loss itself, or acts between it and the step.
    trains_head: ClassVar[bool] = True  #: It trains the head by gradient descent, so that others can work on it too.
    trains: ClassVar[bool] = True  #: The method leaves something to train by gradient descent.
    #: The method works on the class head; one that does not attaches to any module, with a head or without.
    needs_head: ClassVar[bool] = True
    needs_forward: ClassVar[bool] = True  #: It reads features or logits through `forward`, besides the user's steps.
    replaces_head: ClassVar[bool] = False  #: It makes the logits itself, or works on the head's weights: only one can.
    constrains: ClassVar[bool] = False  #: It holds weights, gradients or answers: no sense where nothing is trained.
    #: The method freezes the backbone and puts parameters of its own into it: only one can.
    adapts_backbone: ClassVar[bool] = False
    owns_weights: ClassVar[bool] = False  #: It decides for every weight which task it belongs to: only one can.
    rewrites_weights: ClassVar[bool] = False  #: The method changes weights of all tasks at once, as by an average.
    needs_task_identity: ClassVar[bool] = False  #: The method answers only for samples whose task it is told.
    needs_images: ClassVar[bool] = False  #: The method changes images, so inputs must be some.
    stream_kind: ClassVar[StreamKind] = "labelled"  #: The streams that it is made for.
    boundaries: ClassVar[Boundaries] = "unused"  #: Whether it does something where a task begins or ends.
    #: What it does when a task ends, as a sentence goes on, and what to use in place of a scenario with tasks.
    needs_task_end: ClassVar[tuple[str, str] | None] = None
    works_on: ClassVar[str] = "any network"  #: Networks, in words for a table.

    _: KW_ONLY
    head: str | None = None
    train_mask: TrainMask = "all"
    reset_optimizer: bool = False

    def __post_init__(self) -> None:
        """Check the arguments by the ranges of their fields; a method that checks more calls this one, too."""
        check_fields(self)
        if self.train_mask not in STRICTNESS:
            raise ValueError(f'`train_mask` is {self.train_mask!r}; give "batch", "task", "seen" or "all".')

    @property
    def several_labels(self) -> bool:
        """Whether it is for samples with several labels each; others are for one."""
        return False

    @classmethod
    def part_in(cls, pl_module: Any) -> Any:
        """The method's parameters, buffers and mathematics in a module that it was attached to; else a ``KeyError``."""
        return pl_module.continual.parts[part_name(cls.state_key)]

    @classmethod
    def backbones(cls) -> str:
        """The networks that it works on, in words for a table."""
        return cls.works_on

    def asks_for_task(self) -> bool:
        """Whether it must be told the task of evaluation samples, with the arguments that it has."""
        return self.needs_task_identity

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach to the module, once."""
        stream = require_stream(trainer, type(self).__name__)
        check_labels_of_method(stream, type(self).__name__, self.several_labels, self.needs_head)
        check_combination(self, [c for c in callbacks_of(trainer) if isinstance(c, ContinualMethod)])
        check_module(self, pl_module)
        check_stream_kind(self, stream)
        frozen = {name for name, p in pl_module.named_parameters() if not p.requires_grad}
        self._untrained = self.state_key not in getattr(getattr(pl_module, "continual", None), "methods", ())
        self.attach_once(pl_module, stream.info)
        masked = pl_module.continual.head_path is not None  # type: ignore[union-attr]
        check_labels_of_method(stream, type(self).__name__, self.several_labels, masked)
        self._refuse_thawing(trainer, pl_module, frozen)
        pl_module.continual.batch_keys = stream.batch_keys  # type: ignore[union-attr]
        pl_module.continual.replays = stream.replay_share > 0  # type: ignore[union-attr]
        if stage == "fit":
            pl_module.continual.choice.current = 0  # type: ignore[union-attr]  # until the fit says where it starts

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The current task is the stream's, also after a resume."""
        stream = getattr(trainer, "datamodule", None)
        pl_module.continual.choice.current = getattr(stream, "task_index", None)  # type: ignore[union-attr]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on no task is the current one."""
        pl_module.continual.choice.current = None  # type: ignore[union-attr]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """As at the end."""
        if isinstance(state := getattr(pl_module, "continual", None), ContinualState):
            state.choice.current = state.choice.told = None

    def attach_once(self, pl_module: LightningModule, info: StreamInfo) -> None:
        """:meth:`attach`, unless this method is attached already.

        Raises:
            ValueError: If it is attached with other arguments, which would be ignored; or for a stream that was
                extended since.
        """
        state = getattr(pl_module, "continual", None)
        known = getattr(state, "info", info)
        refuse_other_stream(type(pl_module).__name__, known, info)
        if state is not None and self.state_key in getattr(state, "methods", ()):
            self._refuse_other_arguments(state.configs[state.methods.index(self.state_key)]["arguments"])
        else:
            trained_before = {name for name, p in pl_module.named_parameters() if p.requires_grad}
            self.attach(pl_module, info)
            assert isinstance(pl_module, ContinualMixin)
            state = pl_module.continual
            state.methods.append(self.state_key)
            state.configs.append({"class": type(self).__name__, "arguments": plain(self.config())})
            trained = {name for name, p in pl_module.named_parameters() if p.requires_grad}
            state.trained_parameters = state.own_parameters & trained
            if trained != trained_before:
                self._refuse_behind_copies(state)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """What it has learned comes back."""
        self._untrained = False

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of answers of a method that has learned nothing."""
        if self._untrained:
            rank_zero_warn(
                f"{type(self).__name__} has learned nothing yet and no checkpoint is given, so an untrained model "
                "answers; pass `ckpt_path=...`, or the module that was trained."
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn as before a test."""
        self.on_test_start(trainer, pl_module)

    def _refuse_thawing(self, trainer: Trainer, pl_module: LightningModule, before: set[str]) -> None:
        """A callback that trains layers later would let a part of a frozen backbone move, and the rest not."""
        froze = any(not p.requires_grad and name not in before for name, p in pl_module.named_parameters())
        froze |= not self.trains or any(isinstance(m, FrozenBackbone) for m in pl_module.modules())
        names = [type(c).__name__ for c in callbacks_of(trainer) if isinstance(c, BaseFinetuning)]
        if froze and names:
            raise ValueError(
                f"{' and '.join(names)} makes layers trainable in the course of a run, but {type(self).__name__} keeps "
                f"the backbone frozen; leave out {' and '.join(names)}, or use a method that trains all of the model."
            )

    def _refuse_other_arguments(self, known: dict[str, Any] | None) -> None:
        own = plain(self.config())
        if known is None or own is None or known == own:
            return
        names = [name for name in own if name not in known or known[name] != own[name]]
        before, now = ({name: values.get(name) for name in names} for values in (known, own))
        raise ValueError(
            f"the module already has the method {type(self).__name__}, with {before}, but this callback has {now}, "
            "which would be ignored; give the same arguments, or a fresh module."
        )

    def _refuse_behind_copies(self, state: ContinualState) -> None:
        """A method that copied the trained weights when it was attached knows nothing of this one's."""
        copying = {name for name, part in state.parts.items() if any(isinstance(m, Snapshot) for m in part.modules())}
        copies = [key for key in state.methods if part_name(key) in copying and key != self.state_key]
        if copies:
            raise ValueError(
                f"{method_names(copies)} copies the trained weights, and {type(self).__name__} behind it changes which "
                f"they are; put {type(self).__name__} in front of it in the list of callbacks."
            )

    def prepare_restore(self, state: dict[str, Any]) -> None:
        """Take from a saved state what :meth:`setup` learns of a stream and :meth:`attach` must know; nothing here."""

    def attach(self, pl_module: LightningModule, info: StreamInfo) -> None:
        """Install the method in a live module; no Trainer needed.

        Args:
            pl_module: Any LightningModule.
            info: The stream.
        """
        self.extend(pl_module, self.mixin, info)
        part = self.build(pl_module, info)
        if part is not None:
            assert isinstance(pl_module, ContinualMixin)
            pl_module.add_method(part_name(self.state_key), part)

    def build(self, pl_module: LightningModule, info: StreamInfo) -> MethodModule | None:
        """The method's parameters, buffers and mathematics for a module whose head is known; ``None``: it has none.

        Args:
            pl_module: With ``continual_head``, unless the method works without one.
            info: The stream.
        """
        return None

    def extend(self, pl_module: LightningModule, mixin: type[ContinualMixin], info: StreamInfo) -> None:
        """Add the method's mixin and configure what all methods share."""
        extend(pl_module, mixin)
        assert isinstance(pl_module, ContinualMixin)
        pl_module.configure_continual(
            info,
            head=self.head,
            train_mask=self.train_mask,
            reset_optimizer=self.reset_optimizer,
            needs_head=self.needs_head,
        )

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values, for reports."""
        from inspect import signature

        return {name: getattr(self, name) for name in signature(type(self).__init__).parameters if hasattr(self, name)}


def part_name(state_key: str) -> str:
    """Name the part of a method in a module: ``"ewc"`` for ``"lightning_cl.EWC"``."""
    return state_key.rpartition(".")[2].lower()


def require_stream(trainer: Trainer, who: str) -> ContinualDataModule:
    """The Trainer's stream.

    Raises:
        ValueError: If the Trainer was given plain loaders or another DataModule.
    """
    from lightning_cl.datamodules import ContinualDataModule

    stream = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(stream, ContinualDataModule):
        given = "plain dataloaders" if stream is None else f"a {type(stream).__name__}"
        raise ValueError(
            f"{who} needs a stream, but the Trainer was given {given}; pass "
            "`datamodule=ContinualDataModule(source, scenario)`. `DataModuleSource(your_datamodule)` or "
            "`DatasetSource(train, test)` turns existing data into a source."
        )
    return stream
