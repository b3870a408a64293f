"""A model that learns one folder of images after another, and answers between any two of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from lightning_cl.datamodules.sources.base import Source
from lightning_cl.lifelong.call import Call, absolute, check_apart, check_none_stopped, unfinished_call
from lightning_cl.lifelong.configuration import Configuration, describe, part_of
from lightning_cl.lifelong.lineage import data_of_run, lineage, new_record
from lightning_cl.lifelong.model_folder import ModelFolder
from lightning_cl.lifelong.new_model import configured
from lightning_cl.lifelong.operations import forget_class, frozen_names, info_of, merge_classes, rename_class
from lightning_cl.lifelong.prediction import Answer, Batch, Images, Predictions, named_batches, predict
from lightning_cl.lifelong.run_folder import is_run, read_run
from lightning_cl.lifelong.teaching import Taught, teach
from lightning_cl.namespace import LightningDataModule, LightningModule, Logger
from lightning_cl.restoration import rebuild


class LearnedModel:
    """A model folder, at one of its versions.

    Args:
        folder: The model folder; it needs not be there yet.
        configuration: Of the model.
        number: The version; ``None``: nothing was learned yet.
        checkpoint: Of a run that is to become the first version.
    """

    def __init__(
        self,
        folder: ModelFolder,
        configuration: Configuration,
        number: int | None = None,
        checkpoint: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.configuration, self.version = folder, configuration, number
        self._checkpoint, self._module = checkpoint, cast(LightningModule | None, None)

    # ------------------------------------------------------------------ what it is

    @property
    def checkpoint(self) -> dict[str, Any]:
        """The whole checkpoint of the version.

        Raises:
            ValueError: If nothing was learned yet, or a file is damaged.
        """
        if self._checkpoint is None:
            if self.version is None:
                raise ValueError(f"the model in {self.folder.path} has learned nothing yet; call `learn` first.")
            self._checkpoint = self.folder.checkpoint(self.version)
        return self._checkpoint

    @property
    def module(self) -> LightningModule:
        """The LightningModule with its methods attached and its weights loaded, in eval mode."""
        if self._module is None:
            fresh = self.configuration.build_module(info_of(self.checkpoint).num_classes, fresh=False)
            self._module = rebuild(self.checkpoint, self.folder.path, fresh, self.configuration.build_methods())
        return self._module

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that it may answer, in the order in which they came."""
        names = info_of(self.checkpoint).class_names
        return [names[column] for column in self.columns]

    @property
    def columns(self) -> list[int]:
        """Of its logits, those that it may answer."""
        info, state = info_of(self.checkpoint), getattr(self.module, "continual", None)
        seen = info.seen_classes(info.num_tasks - 1)
        allowed = None if state is None or not len(state.mask.eval_allowed) else state.mask.eval_allowed.tolist()
        return [column for column in seen if allowed is None or allowed[column]]

    @property
    def lineage(self) -> list[dict[str, Any]]:
        """What every version was made of, oldest first."""
        return [] if self.version is None else lineage(self.folder, self.version)

    # ------------------------------------------------------------------ learning

    def learn(
        self,
        data: str | os.PathLike[str] | Source | LightningDataModule | None = None,
        *,
        rename: Mapping[str, str] | None = None,
        epochs: int | None = None,
        test_fraction: float | None = None,
        loggers: Sequence[Logger] = (),
    ) -> Taught:
        """Learn one more folder of images, and become the version that has.

        Classes are known by their names: one that comes back is continued, all others are new. Nothing that was learned
        before is read but a method's memory. A call that was killed is continued by the same call.

        Args:
            data: A folder with ``<class>/`` or with ``train/<class>/`` and ``test/<class>/``; a source; or a
                LightningDataModule. ``None``: go on with the call that was stopped here.
            rename: New name by name of a class in the data.
            epochs: Passes over the data, for methods that train; ``None``: as the model is configured.
            test_fraction: Share of each class that is held out where the data have no test split; 0: nothing is, so
                that nothing is measured of it. ``None``: as the model is configured.
            loggers: Of the Trainer.

        Returns:
            What was learned, and how well it is answered now.

        Raises:
            ValueError: If the data cannot be learned as they are; nothing is changed then.
        """
        stopped = unfinished_call(self.folder)
        if data is None:
            if stopped is None:
                raise ValueError(
                    f"no call was stopped in {self.folder.path}, so there is nothing to go on with; give data."
                )
            data, rename = stopped.data, stopped.rename
            epochs, test_fraction = stopped.epochs, stopped.test_fraction
        if self.version is None and self._checkpoint is not None:
            self._adopt()
        where = absolute(data) if isinstance(data, (str, os.PathLike)) else type(data).__name__
        if isinstance(data, (str, os.PathLike)):
            check_apart(self.folder, where)
        call = Call(where, self.version, self.configuration.to_dict(), epochs, test_fraction, dict(rename or {}))
        start = None if self.version is None else self.checkpoint
        taught = teach(self.folder, self.configuration, start, call, data, loggers)
        self._become(taught.version)
        return taught

    def _adopt(self) -> None:
        """Make the run that was loaded the first version of a model folder beside it."""
        checkpoint, info = self.checkpoint, info_of(self.checkpoint)
        if checkpoint.get("ContinualDataModule", {}).get("exposed") is not None:
            raise ValueError(
                f"the run in {self.folder.path} was made on an online stream, which cannot go on with folders; begin a "
                "model folder of its own with `lightning-cl learn DATA --into DIR`."
            )
        record = new_record("run", None, info.class_names, data=str(self.folder.path))
        data = data_of_run(info, str(self.folder.path))
        self.version = self.folder.add(
            checkpoint, record, data, self.configuration.to_dict(), frozen_names(self.module)
        )

    def _become(self, number: int) -> None:
        self.version, self._checkpoint, self._module = number, None, None

    def to(self, number: int) -> LearnedModel:
        """Go back (or forth) to a version, from which the next call goes on; all versions stay."""
        self.folder.go_to(number)
        self._become(number)
        return self

    # ------------------------------------------------------------------ stated operations

    def rename(self, old: str, new: str) -> int:
        """Give a class another name; the number of the version that has it."""
        return self._state("rename", rename_class(self.checkpoint, old, new), {}, f"{old} -> {new}")

    def merge(self, old: str, into: str) -> int:
        """Let all that was learned of a class count as another, where the method can; the number of the new version."""
        return self._state("merge", *merge_classes(self.checkpoint, self._copy(), old, into), f"{old} -> {into}")

    def forget(self, name: str) -> int:
        """Forget a class, where the method can; the number of the new version.

        Earlier versions still know it: delete their folders if it must be gone.
        """
        return self._state("forget", *forget_class(self.checkpoint, self._copy(), name), f"column {self._column(name)}")

    def _column(self, name: str) -> int:
        return list(info_of(self.checkpoint).class_names).index(name)

    def _copy(self) -> LightningModule:
        """A module of its own, so that a refused operation changes nothing."""
        self._module, kept = None, self._module
        made, self._module = self.module, kept
        return made

    def _state(self, action: str, checkpoint: dict[str, Any], facts: dict[str, Any], what: str) -> int:
        check_none_stopped(self.folder, f"a {action} now")
        if self.version is None:
            self._adopt()
        record = new_record(action, self.version, info_of(checkpoint).class_names, data=what, **facts)
        content = {"where": what, "tasks": [], "hashes": {}}
        number = self.folder.add(checkpoint, record, content, self.configuration.to_dict(), frozenset())
        self._become(number)
        return number

    # ------------------------------------------------------------------ answering

    def answer(self) -> Answer:
        """Images to probabilities of :attr:`class_names`, as a module of PyTorch."""
        return Answer(self.module, self.columns).eval()

    def predict(
        self,
        images: Images,
        batch_size: int = 64,
        device: str | torch.device | None = None,
        progress: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
    ) -> Predictions:
        """The probabilities of the classes, by name.

        Args:
            images: A path, a folder, a list of them or of pictures of Pillow, or a ``(N, C, H, W)`` float tensor as the
                model takes.
            batch_size: Images at a time.
            device: Where to compute; ``None``: on a GPU if there is one.
            progress: Gives the batches on, and may show how many it has given.

        Raises:
            ValueError: If images are not there, or a tensor has another shape.
            OSError: If a file cannot be read; it is named.
        """
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        batches = named_batches(images, self.configuration.preprocessing, batch_size)
        return predict(self.answer(), self.class_names, progress(batches), chosen)

    def export(self, path: str | os.PathLike[str], form: str = "torch-export") -> Path:
        """Write the model for other programs; see :func:`~lightning_cl.lifelong.export.export`."""
        from lightning_cl.lifelong.export import export

        return export(self, Path(path), form)


def load(folder: str | os.PathLike[str], version: int | None = None) -> LearnedModel:
    """Open a model folder, or the folder of a run: class, arguments, methods and weights from what lies there.

    Args:
        folder: What ``lightning-cl learn`` or :func:`create` made; or what ``lightning-cl fit`` left (``config.yaml``
            and checkpoints).
        version: Of a model folder; ``None``: the current one.

    Raises:
        ValueError: If the folder holds neither, a file is damaged or of a newer lightning_cl, or there is no such
            version.
    """
    files = ModelFolder(folder)
    if files.exists():
        configuration = Configuration.from_dict(files.index()["configuration"])
        return LearnedModel(files, configuration, files.version(version))
    stopped = unfinished_call(files)
    if stopped is not None:
        return LearnedModel(files, Configuration.from_dict(stopped.configuration))
    if is_run(files.path):
        configuration, checkpoint = read_run(files.path)
        return LearnedModel(files, configuration, checkpoint=checkpoint)
    files.index()  # says what is missing
    raise AssertionError


def create(
    folder: str | os.PathLike[str],
    model: LightningModule | None = None,
    methods: Sequence[Any] = (),
    image_size: int | None = None,
    **options: Any,
) -> LearnedModel:
    """Begin a model folder; nothing is written before the first ``learn``.

    By default a frozen pre-trained backbone that is in the package (``vit_nano_omniglot``: small grey pictures) with
    class means and one covariance (``FeCAM(covariance="shared")``): it keeps no image, trains nothing and needs no
    network.

    Args:
        folder: Where the model will be.
        model: A LightningModule whose arguments are known (``save_hyperparameters()``, or one of this package); its
            weights are those that its arguments give.
        methods: Continual-learning methods, in order; with a ``model`` at least ``FineTuning()``.
        image_size: Height and width that the model takes, where it holds no timm network.
        options: Further fields of :class:`~lightning_cl.lifelong.Configuration`: ``batch_size``, ``epochs``, ``seed``,
            ``test_fraction``, ``augment``, ``head``.

    Raises:
        ValueError: If a model is there already, or this one cannot be built again.
    """
    files = ModelFolder(folder)
    if files.exists():
        raise ValueError(f"{files.path} is a model folder already; open it with `lightning_cl.load`, or give another.")
    if model is not None:
        return LearnedModel(files, describe(model, methods, image_size, **options))
    configuration = configured(image_size=image_size, **options)
    if methods:
        configuration.methods = [part_of(method, method.config()) for method in methods]
    return LearnedModel(files, configuration)
