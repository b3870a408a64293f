"""Through how many files of the package a training step goes: what a reader must know to follow one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from conformance.modules import PlainModule
from conformance.streams import make_stream
from lightning.pytorch import Trainer, seed_everything

import lightning_cl
from lightning_cl.callbacks import CODAPrompt, ExperienceReplay

PACKAGE = str(Path(lightning_cl.__file__).parent)


class Counting(PlainModule):
    """Notes whose functions run between the Trainer's call of ``optimizer_step`` and its end, in each step."""

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        files: set[str] = set()

        def note(frame: Any, event: str, _: Any) -> None:
            if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
                files.add(frame.f_code.co_filename.removeprefix(PACKAGE).lstrip("/\\"))

        sys.setprofile(note)
        try:
            super().optimizer_step(*args, **kwargs)  # training_step, backward, the step, and hooks around them
        finally:
            sys.setprofile(None)
        self.steps = [*getattr(self, "steps", []), files]


def files_of_steps(folder: Path, *methods: Any) -> list[set[str]]:
    """What every step of a fit on three tasks goes through."""
    seed_everything(0, verbose=False)
    module = Counting()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        default_root_dir=folder,
        callbacks=list(methods),
    )
    trainer.fit(module, datamodule=make_stream())
    return module.steps


def coda() -> CODAPrompt:
    return CODAPrompt(pool_size=9, prompt_length=4, layers=(0, 1))


@pytest.mark.parametrize(
    ("methods", "most"),
    [((coda,), 14), ((coda, lambda: ExperienceReplay(memory_size=12, batch_size=5)), 18)],
    ids=["coda", "coda-replay"],
)
def test_a_step_of_coda_prompt_goes_through_few_files(methods, most, tmp_path):
    steps = files_of_steps(tmp_path, *(make() for make in methods))
    longest = max(steps[1:], key=len)  # the first step also finds out whether it uses the prompts
    assert len(steps) == 16
    assert {"nn/coda_prompt.py", "nn/prompted_vit.py"} <= longest  # it counts at all
    assert len(longest) <= most, sorted(longest)
