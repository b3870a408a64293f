"""What is refused and decided where a stream, a Trainer and a module meet, before anything is trained."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_cl.datamodules.argument_kinds import shown
from lightning_cl.datamodules.extension import refuse_smaller_state
from lightning_cl.datamodules.protocol import Stream
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.namespace import Callback, LightningModule, Trainer, is_overridden, rank_zero_warn

#: What Lightning sets when the user gave no ``max_epochs``.
_LIGHTNING_DEFAULT_EPOCHS = 1000


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """The Trainer's own list."""
    return trainer.callbacks  # type: ignore[attr-defined,no-any-return]


def explain_synchronised_norm(error: BaseException, pl_module: nn.Module) -> None:
    """Complete PyTorch's error about batch norm that is synchronised over processes without a GPU, in place."""
    if not str(error).startswith("SyncBatchNorm") or len(error.args) != 1:
        return
    layer = next((name for name, m in pl_module.named_modules() if isinstance(m, nn.SyncBatchNorm)), "")
    error.args = (
        f"{error.args[0]}; `Trainer(sync_batchnorm=True)`, or the model itself, made one of `{layer}`, but this run is "
        "on the CPU: leave `sync_batchnorm` out, or use `nn.GroupNorm`.",
    )


def refuse_wrong_callbacks(trainer: Trainer) -> None:
    """Refuse what is no callback; it is taken out, or Lightning would stumble over it on the way out.

    Raises:
        ValueError: With what was given.
    """
    callbacks = callbacks_of(trainer)
    wrong = [c for c in callbacks if isinstance(c, type) or not hasattr(c, "on_train_start")]
    if wrong:
        callbacks[:] = [c for c in callbacks if c not in wrong]
        made = f", such as `{wrong[0].__name__}(...)`" if isinstance(wrong[0], type) else " of a callback"
        given = shown(wrong[0])
        raise ValueError(f"`callbacks` of the Trainer has {given}; expected an instance{made}, or leave it out.")


def method_keys(trainer: Trainer) -> list[str]:
    """``state_key`` of every method among the callbacks, in order."""
    return [callback.state_key for callback in callbacks_of(trainer) if is_method(callback)]


def is_method(callback: Callback) -> bool:
    """Whether a callback changes how a module learns, and does not only watch."""
    return hasattr(callback, "attach_once")


def class_readers(trainer: Trainer) -> list[str]:
    """Names of the callbacks that go by the classes in a batch: methods and evaluations, which look at a head."""
    ours = (c for c in callbacks_of(trainer) if is_method(c) or str(c.state_key).startswith("lightning_cl."))
    return [type(callback).__name__ for callback in ours if hasattr(callback, "head")]


def changes_batches(trainer: Trainer) -> bool:
    """Whether a hook may put the rows of a batch into another order before the training step."""
    hooks = ("on_before_batch_transfer", "on_after_batch_transfer")
    owners = (trainer.lightning_module, trainer.datamodule)  # type: ignore[attr-defined]
    return any(is_overridden(name, owner) for name in hooks for owner in owners)


def refuse_unplanned_loader(trainer: Trainer, stream: Stream) -> None:
    """Refuse a training loader of the user's where samples are counted by the stream's own.

    Raises:
        ValueError: If there is one.
    """
    given, readers = trainer.train_dataloader, class_readers(trainer)
    if readers and given is not stream._train_loader:
        raise ValueError(
            f"`{type(stream).__name__}.train_dataloader` gives a {type(given).__name__}, but {readers[0]} goes by the "
            "samples and classes of the stream's own loader; leave the method as it is, weight classes in the loss "
            "instead of a `WeightedRandomSampler`, and change the images with `train_transform` or `collate_fn`, the "
            "order with a scenario."
        )


def say_unused_loader(stream: Stream, module: LightningModule) -> None:
    """Warn of a module's own training loader, which Lightning leaves out beside a DataModule."""
    if is_overridden("train_dataloader", module):
        rank_zero_warn(
            f"`{type(module).__name__}.train_dataloader` is not used: the samples come from {type(stream).__name__}; "
            "weight classes in the loss instead of a sampler, and make a source of the data with "
            "`DatasetSource(train, test)`."
        )


def resets_optimizer(module: Any) -> bool:
    """Whether a method of the module builds optimisers and schedules anew in every task."""
    return bool(getattr(getattr(module, "continual", None), "reset_optimizer", False))


def epoch_limit(stream: Stream, given: int | None) -> int | None:
    """The user's ``max_epochs``, if it is below the schedule's total.

    Raises:
        ValueError: If it is above.
    """
    total = stream.schedule.total
    if given in (None, -1, _LIGHTNING_DEFAULT_EPOCHS, total):
        return None
    assert given is not None
    if given > total:
        raise ValueError(
            f"`max_epochs` is {given} but the schedule has {total} epochs "
            f"({len(stream.schedule.epochs)} tasks, epochs per task {sorted(set(stream.schedule.epochs))}); "
            "leave `max_epochs` unset, or raise `epochs_per_task`."
        )
    last, tasks = stream.schedule.task_at(given - 1), len(stream.schedule.epochs)
    whole = last + (given - 1 == stream.schedule.last_epoch(last))
    rank_zero_warn(
        f"`max_epochs={given}` ends the run in task {last + 1} of "
        f"{tasks}; the whole stream has {total} epochs. So {whole} of {tasks} tasks will be trained to their end: "
        f"`max_epochs` counts the epochs of all tasks together; for {given} epochs on each task, set "
        f"`ContinualDataModule(epochs_per_task={given})` and leave `max_epochs` at -1."
    )
    return given


def refuse_copied_processes(trainer: Trainer) -> None:
    """Lightning brings back the weights that the module had before any method, and nothing of the callbacks."""
    from lightning_cl.namespace import _MultiProcessingLauncher

    ours = [type(c).__name__ for c in callbacks_of(trainer) if str(c.state_key).startswith("lightning_cl.")]
    if ours and isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ValueError(
            "the strategy runs the fit in copies of this process (`ddp_spawn`, `ddp_fork`, `ddp_notebook`), with which "
            f"all that {' and '.join(ours)} added, learned and measured would be lost when they end; use "
            '`Trainer(strategy="ddp")` in a script, or `devices=1` in a notebook.'
        )


def refuse_split_modules(trainer: Trainer) -> None:
    """What methods add, guard and save must be whole on every process; only a frozen backbone can be split."""
    methods = [type(c).__name__ for c in callbacks_of(trainer) if is_method(c)]
    strategy = type(trainer.strategy).__name__
    if methods and strategy in ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy"):
        raise ValueError(
            f"the strategy is {strategy}, which splits every parameter over the processes, but what "
            f"{' and '.join(methods)} trains must be whole on each; "
            'use `strategy="ddp"` and, for a large frozen backbone, add '
            "`ShardedBackbone()` to the callbacks: it splits the backbone and nothing else."
        )


def before_loading(
    info: StreamInfo, has_method: bool, double: bool, module: Any, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    """A hook before the weights of a checkpoint are put into a module.

    Args:
        info: The stream.
        has_method: There is a method among the callbacks, which looks at the checkpoint itself.
        double: The Trainer has ``precision="64-true"``. Lightning converts the module only afterwards, when the values
            have been rounded.
        module: The module.
        state_dict: What is about to be loaded.
        prefix: The module's name in another one that is loaded; empty for the LightningModule.
    """
    if double and not prefix:
        module.double()
    if has_method:
        return
    if not hasattr(module, "continual") and any(key.startswith(f"{prefix}continual.") for key in state_dict):
        raise ValueError(
            "the checkpoint was made with a continual-learning method, but this Trainer has none; add the callbacks "
            "that the checkpoint was made with."
        )
    if not prefix:
        refuse_smaller_state(info, module.state_dict(), state_dict)
