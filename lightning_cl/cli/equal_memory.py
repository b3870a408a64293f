"""Size the memories of replay so that every method stores as many bytes as the largest."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_cl.callbacks import ContinualMethod, ExperienceReplay
from lightning_cl.callbacks.evaluation.cost_counts import stored_bytes
from lightning_cl.cli.arguments import class_name
from lightning_cl.cli.command import ContinualCLI, built
from lightning_cl.cli.configs import UsageError
from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.training.batch import unpack
from lightning_cl.training.evaluation_mode import evaluating


@dataclass(frozen=True)
class Footprint:
    """What a method stores at the end of a stream."""

    model_bytes: int  # parameters and buffers, methods included, but what grows with the memory
    memory_size: int  # samples that its memory can hold; 0: it has none
    sample_bytes: int  # of one of them
    train_samples: int  # of the stream, more than which no memory can hold

    @property
    def total(self) -> int:
        """Bytes of the model and the full memory."""
        return self.model_bytes + min(self.memory_size, self.train_samples) * self.sample_bytes


def aligned_sizes(footprints: Mapping[str, Footprint], most: int | None = None) -> dict[str, int]:
    """Memory sizes of the methods that have a memory, so that all store as much as the largest (arXiv:2302.03648).

    ``floor((largest total - model) / bytes of a sample)``, at most all training samples.

    Args:
        footprints: By method.
        most: Bytes that each may store, in place of the largest total.
    """
    most = max((footprint.total for footprint in footprints.values()), default=0) if most is None else most
    return {
        name: min((most - f.model_bytes) // f.sample_bytes, f.train_samples)
        for name, f in footprints.items()
        if f.memory_size
    }


def too_large(footprints: Mapping[str, Footprint], most: int) -> dict[str, str]:
    """Methods that store more than so many bytes even with a memory of one sample, each with a sentence about it."""
    least = {name: f.model_bytes + (f.sample_bytes if f.memory_size else 0) for name, f in footprints.items()}
    return {
        name: f"{name} cannot run here: it stores at least {size} bytes, over the budget of {most}"
        for name, size in least.items()
        if size > most
    }


def remarks(footprints: Mapping[str, Footprint], sizes: Mapping[str, int], most: int | None = None) -> tuple[str, ...]:
    """Say which memories were aligned, and which could not be."""
    most = max(footprint.total for footprint in footprints.values()) if most is None else most
    lines = [f"memories aligned to {most / 2**20:.2f} MiB of parameters, buffers and kept data"]
    for name, footprint in footprints.items():
        if name in sizes:
            full = " (all training samples)" if sizes[name] == footprint.train_samples else ""
            before = "as given" if sizes[name] == footprint.memory_size else f"in place of {footprint.memory_size}"
            lines.append(f"{name}: memory of {sizes[name]} samples{full}, {before}")
        elif footprint.total < most:
            lines.append(f"{name}: stores {footprint.total / 2**20:.2f} MiB and has no memory that could grow")
    return tuple(lines)


def with_memory(config: dict[str, Any], size: int) -> dict[str, Any]:
    """The configuration with that ``memory_size`` in the one callback that has one."""
    config = copy.deepcopy(config)
    keepers = [c for c in config["trainer"]["callbacks"] if "memory_size" in (c.get("init_args") or {})]
    if len(keepers) != 1:
        names = ", ".join(map(class_name, keepers)) or "none"
        raise UsageError(f"`--align memory` sets the `memory_size` of one callback, but here {names} has one.")
    init_args = keepers[0]["init_args"]
    init_args["memory_size"] = size
    init_args["batch_size"] = min(init_args.get("batch_size", size), size)
    return config


class MeasuringCLI(ContinualCLI):
    """Builds everything as a run does, attaches the methods, and measures what is stored: its ``footprint``."""

    def _run_subcommand(self, subcommand: str) -> None:
        trainer: Any = self.trainer
        stream: ContinualDataModule = self.datamodule
        stream.prepare_data()
        stream.setup()
        methods = [c for c in trainer.callbacks if isinstance(c, ContinualMethod)]
        for method in methods:
            method.attach_once(self.model, stream.info)
        image = unpack(stream.batch(stream.layout.train_index[0][:1], view="train"), stream.batch_keys)[0][0]
        kept = sum(int(getattr(c, "memory_size", 0)) for c in methods)
        as_given = any(getattr(c, "store", "index") == "sample" for c in methods)
        size = image.nbytes + 8 if as_given else image.numel()  # a label of 8 bytes
        if any(isinstance(c, ExperienceReplay) and not c.keeps_samples for c in methods):
            size = 8  # a label
            with evaluating(self.model):  # what is kept is known after a pass
                self.model(image[None])
        replays = [c for c in methods if isinstance(c, ExperienceReplay)]
        within = sum(c.bytes_within(self.model) for c in replays)
        size += within + sum(c.bytes_beside(self.model) for c in replays)
        model = stored_bytes((*self.model.parameters(), *dict(self.model.named_buffers()).values()))
        samples = sum(len(part) for part in stream.layout.train_index)
        self.footprint = Footprint(model - kept * within, kept, int(size), samples)


def measure(words: list[str], debug: bool) -> Footprint:
    """The footprint of a configuration."""
    return built(MeasuringCLI, words, debug, save_config_callback=None).footprint
