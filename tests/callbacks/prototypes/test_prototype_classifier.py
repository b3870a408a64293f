"""Features remembered of evaluation images are those of the images that the step really passes, whatever it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conformance.modules import PLAIN, SPLIT, PlainModule, SplitModule
from conformance.runs import attached
from conformance.streams import make_stream
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.callbacks import CODAPrompt, PrototypeClassifier


def in_random_order(images: Tensor, generator: torch.Generator) -> Tensor:
    return images[torch.randperm(len(images), generator=generator)]


def some_left_out(images: Tensor, generator: torch.Generator) -> Tensor:
    return images[torch.rand(len(images), generator=generator) < 0.7]


def some_instead_of_others(images: Tensor, generator: torch.Generator) -> Tensor:
    return images[torch.randint(len(images), (len(images),), generator=generator)]


def with_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + torch.rand(images.shape, generator=generator)


def with_noise_in_place(images: Tensor, generator: torch.Generator) -> Tensor:
    return images.add_(torch.rand(images.shape, generator=generator))


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    return images.flip(-1)


CHANGES = [in_random_order, some_left_out, some_instead_of_others, with_noise, with_noise_in_place, mirrored]


def recording(base: type[LightningModule]) -> type[Any]:
    """A module whose evaluation changes its batch first, and that keeps the images and its answers."""

    class Recording(base):  # type: ignore[valid-type,misc]
        change: Any = staticmethod(lambda images, generator: images)

        def on_fit_start(self) -> None:
            self.passed: list[tuple[Tensor, Tensor]] = []
            self.generator = torch.Generator().manual_seed(0)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            images = self.change(batch[0].clone(), self.generator)
            self.passed.append((images.clone(), self(images).clone()))

    return Recording


MODULES = {"plain": recording(PlainModule), "split": recording(SplitModule)}


def fit(module: Any, method: Any, folder: Path) -> None:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=-1,
        enable_model_summary=False, default_root_dir=folder, callbacks=[method], num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=make_stream(epochs_per_task=1, eval_batch_size=16))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("kind", "case"), [("prototypes", PLAIN), ("prototypes", SPLIT), ("prompts", PLAIN)])
def test_a_step_gets_the_features_of_the_images_it_passes(kind: str, case: Any, change: Any, tmp_path: Path) -> None:
    answers = []
    for cached in (True, False):
        seed_everything(0, verbose=False)
        module = MODULES[case.name]()
        module.change = change
        prompts = {"pool_size": 9, "prompt_length": 4, "layers": (0, 1), "cache_queries": cached}
        method = PrototypeClassifier(cache_features=cached) if kind == "prototypes" else CODAPrompt(**prompts)
        fit(module, method, tmp_path)
        answers.append(module.passed)
    assert len(answers[0]) == 6
    for (images, logits), (same, expected) in zip(*answers, strict=True):
        assert torch.equal(images, same)
        assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_what_a_step_always_does_is_remembered(tmp_path: Path) -> None:
    """Mirrored images are the same in every evaluation, so the backbone sees each of them once."""
    module = MODULES["plain"]()
    module.change = mirrored
    fit(module, PrototypeClassifier(), tmp_path)
    assert module.continual.parts.prototypeclassifier.bypass.skipped == "(the module itself)"
    assert module.continual.parts.prototypeclassifier.bypass.cache.hits >= 3
    cache = module.continual.parts.prototypeclassifier.bypass.cache
    assert bool(cache.known["test"].all())
    module.load_state_dict(module.state_dict())  # other weights, other features
    assert not cache.known


def test_a_second_pass_between_features_and_head_is_kept_apart() -> None:
    """A backbone that is called with other images before the head gets the first ones' features."""
    module: Any = attached(SPLIT, PrototypeClassifier()).eval()
    bypass, images = module.continual.parts.prototypeclassifier.bypass, torch.rand(4, 1, 16, 16)
    with torch.no_grad():
        expected = [module.backbone(view).clone() for view in (images, images.flip(-1))]
        for _ in range(3):
            bypass.cache.expect("test", torch.arange(4), 4)
            bypass.watch()
            found = [module.backbone(images)]
            found.append(module.backbone(images.flip(-1)))
            module.fc(found[0])
            bypass.release()
            assert_close(found, expected)
    assert bypass.skipped == "backbone"


def test_only_the_unknown_rows_are_computed_anew() -> None:
    module: Any = attached(PLAIN, PrototypeClassifier()).eval()
    bypass, images, sizes = module.continual.parts.prototypeclassifier.bypass, torch.rand(5, 1, 16, 16), []
    module.net.patch_embed.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    with torch.no_grad():
        for batch in (images, images, replaced(images, 3), replaced(images, 3)):
            expected = None if bypass.skipped is None else module(batch)
            sizes.clear()
            bypass.cache.expect("test", torch.arange(5), 5)
            bypass.watch()
            answer = module(batch)
            bypass.release()
            if expected is not None:
                assert_close(answer, expected)
            if batch is not images:
                assert sizes in ([1], [])
    assert bypass.cache.hits == 3


def replaced(images: Tensor, row: int) -> Tensor:
    images = images.clone()
    images[row] = 0.5
    return images
