"""What a model is made of, as plain values from which it is built again: class, arguments, methods, preprocessing."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from lightning_cl.callbacks.arguments import plain
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.datamodules.sources.images import Augment
from lightning_cl.lifelong.head_size import resize_head
from lightning_cl.lifelong.preprocessing import Preprocessing
from lightning_cl.namespace import LightningModule

#: A class and its arguments, as in a configuration file: ``{"class_path": ..., "init_args": {...}}``.
Part = dict[str, Any]
#: Arguments that only say where a fresh network has its weights from.
_FRESH_WEIGHTS = {"pretrained": False, "checkpoint_path": None}


@dataclass
class Configuration:
    """How a model is built and taught.

    Attributes:
        model: The LightningModule.
        methods: The continual-learning methods, in order.
        preprocessing: What is done to an image.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        batch_size: Images in a training batch.
        epochs: Passes over the new data in each call.
        seed: Of everything that is drawn.
        test_fraction: Share of each class that is held out of folders without a test split, in [0, 1).
        augment: Of training images, see :meth:`Preprocessing.transform`.
    """

    model: Part
    methods: list[Part]
    preprocessing: Preprocessing
    head: str | None = None
    batch_size: int = 32
    epochs: int = 1
    seed: int = 0
    test_fraction: float = 0.2
    augment: Augment = "none"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Configuration:
        """Inverse of :meth:`to_dict`."""
        return cls(**{**values, "preprocessing": Preprocessing.from_dict(values["preprocessing"])})

    def build_module(self, num_classes: int, fresh: bool) -> LightningModule:
        """The module with a head of ``num_classes`` outputs and no method attached.

        Args:
            num_classes: Classes that the model knows.
            fresh: Load pre-trained weights; ``False``: weights come from elsewhere.

        Raises:
            ValueError: If the class cannot be imported, takes other arguments, or has a head that cannot grow.
        """
        options = dict(self.model.get("init_args") or {})
        cls = imported(self.model["class_path"])
        taken = inspect.signature(cls).parameters
        if not fresh:
            options |= {name: value for name, value in _FRESH_WEIGHTS.items() if name in taken}
        if "num_classes" in taken:
            options["num_classes"] = num_classes
        module = made(cls, {**self.model, "init_args": options})
        if not isinstance(module, LightningModule):
            raise ValueError(f"`{self.model['class_path']}` is no LightningModule; give the class of one.")
        resize_head(module, num_classes, self.head)
        return module

    def build_methods(self) -> list[ContinualMethod]:
        """The methods, as callbacks."""
        return [_method(part) for part in self.methods]


def _method(part: Part) -> ContinualMethod:
    """A method; a memory keeps samples, not places in data that will be gone."""
    cls, options = imported(part["class_path"]), dict(part.get("init_args") or {})
    if "store" in inspect.signature(cls).parameters:
        options["store"] = "sample"
    method = made(cls, {**part, "init_args": options})
    if not isinstance(method, ContinualMethod):
        raise ValueError(f"`{part['class_path']}` is no method; `lightning-cl list methods` shows all.")
    return method


def made(cls: Any, part: Part) -> Any:
    """An instance of ``cls``; arguments that are classes themselves are made as a configuration file means them."""
    options = part["init_args"]
    if not any(isinstance(value, Mapping) and "class_path" in value for value in options.values()):
        try:
            return cls(**options)
        except TypeError as error:
            raise ValueError(f"{cls.__name__} cannot be built from {options}: {error}; give its arguments.") from error
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "made", fail_untyped=False, sub_configs=True)
    return parser.instantiate(parser.parse_object({"made": options}))["made"]


def imported(path: str) -> Any:
    """The class at a full dotted path, or of the short name of a method or a model of this package.

    Raises:
        ValueError: If there is none.
    """
    module, _, name = path.rpartition(".")
    modules = [module] if module else ["lightning_cl.callbacks", "lightning_cl.models"]
    for candidate in modules:
        try:
            found = getattr(import_module(candidate), name, None)
        except ImportError:
            found = None
        if found is not None:
            return found
    raise ValueError(
        f"there is no `{path}` to import; a model folder names the class of its module and its methods by their dotted "
        "paths, so define them in a module that can be imported from here."
    )


def part_of(instance: object, arguments: Mapping[str, Any] | None) -> Part:
    """A class and its arguments, from an instance.

    Args:
        instance: A module or a method.
        arguments: Those of its constructor.

    Raises:
        ValueError: If they are no plain values, or the class cannot be imported by its name.
    """
    cls = type(instance)
    while "_extended_from" in vars(cls):  # a live module with methods
        cls = vars(cls)["_extended_from"][0]
    values = None if arguments is None else plain(dict(arguments))
    if values is None:
        raise ValueError(
            f"the arguments of this {cls.__name__} are not known as plain values, so it cannot be built again from a "
            "model folder; call `self.save_hyperparameters()` in its `__init__`, with numbers, texts and lists."
        )
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise ValueError(
            f"{cls.__name__} is defined in the program that runs, where a model folder cannot find it again; move it "
            "into a file of its own and import it from there."
        )
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": values}


def describe(
    module: LightningModule, methods: Sequence[ContinualMethod], image_size: int | None = None, **options: Any
) -> Configuration:
    """The configuration of a live module and its methods.

    Args:
        module: It has called ``save_hyperparameters``, or is one of this package built by :class:`Configuration`.
        methods: In order.
        image_size: Height and width that the module takes, where it holds no timm network.
        options: Further fields of the configuration.

    Raises:
        ValueError: As :func:`part_of` and :meth:`Preprocessing.of`.
    """
    own = getattr(module, "constructor_arguments", None)
    arguments = own or dict(module.hparams) or (None if inspect.signature(type(module)).parameters else {})
    return Configuration(
        part_of(module, arguments),
        [part_of(method, method.config()) for method in methods],
        Preprocessing.of(module, image_size),
        **options,
    )
