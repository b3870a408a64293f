"""Batches whose sequences are padded to different lengths become one batch, in which every sample means the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.output_modules import HuggingFaceTexts, Sentences, texts
from lightning.pytorch import Trainer
from torch import Tensor
from torch.testing import assert_close
from transformers import BatchEncoding

from lightning_cl.callbacks import ContinualEvaluation, ExperienceReplay
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, DatasetSource
from lightning_cl.nn.replay import join, padded_alike


def batch(*lengths: int, side: str = "right", pad: int = 0, **more: Any) -> dict[str, Any]:
    """Sentences of ``1..n`` as a collate function pads them."""
    longest = max(lengths)
    rows, masks = [], []
    for length in lengths:
        ids, gap = list(range(1, length + 1)), longest - length
        rows.append(ids + [pad] * gap if side == "right" else [pad] * gap + ids)
        masks.append([1] * length + [0] * gap if side == "right" else [0] * gap + [1] * length)
    ids, mask = torch.tensor(rows), torch.tensor(masks)
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor(lengths), **more}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pad", [0, 9])
@pytest.mark.parametrize(
    ("first", "second"), [((3, 2), (5, 1, 4)), ((5, 1, 4), (3, 2)), ((2, 2), (3, 1)), ((3, 3), (3, 2))]
)
def test_two_batches_are_one_as_the_collate_function_would_make_it(
    first: tuple[int, ...], second: tuple[int, ...], side: str, pad: int
) -> None:
    found = join(*padded_alike(batch(*first, side=side, pad=pad), batch(*second, side=side, pad=pad)))
    expected = batch(*first, *second, side=side, pad=pad)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_other_parts_with_a_place_for_each_token() -> None:
    embeds, kinds = torch.randn(2, 2, 3), torch.ones(2, 2, dtype=torch.long)
    short = {
        "inputs_embeds": embeds,
        "token_type_ids": kinds,
        "attention_mask": torch.ones(2, 2),
        "labels": torch.ones(2, 2).long(),
        "scores": torch.zeros(2, 2),
        "index": torch.arange(2),
    }
    padded, long = padded_alike(short, {"attention_mask": torch.ones(1, 3)})
    assert torch.equal(padded["inputs_embeds"], torch.cat([embeds, torch.zeros(2, 1, 3)], dim=1))
    assert padded["token_type_ids"].tolist() == [[1, 1, 0]] * 2
    assert padded["labels"].tolist() == [[1, 1, -100]] * 2
    assert padded["scores"] is short["scores"]  # nobody knows what would stand there
    assert padded["index"] is short["index"]
    assert long["attention_mask"].shape == (1, 3)


@pytest.mark.parametrize(
    "other", [batch(3, 2), (torch.zeros(2, 3), torch.zeros(2)), {"image": torch.zeros(2, 3)}, None]
)
def test_what_fits_or_has_no_mask_stays(other: Any) -> None:
    one = batch(3, 1)
    assert padded_alike(one, other) == (one, other)


def test_a_batch_without_rows_and_a_tokenizers_own_type() -> None:
    empty = BatchEncoding({name: value[:0] for name, value in batch(2, 1).items()})
    padded, _ = padded_alike(empty, batch(4))
    assert isinstance(padded, BatchEncoding)
    assert padded["input_ids"].shape == (0, 4)


class Ragged(Sentences):
    """Items as a tokenizer gives them without padding."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        length = int(self.mask[i].sum())
        ones = torch.ones(length, dtype=torch.long)
        return {"input_ids": self.ids[i, :length], "attention_mask": ones, "labels": int(self.targets[i])}


def padded(items: list[dict[str, Any]]) -> dict[str, Tensor]:
    found = {
        name: torch.nn.utils.rnn.pad_sequence([item[name] for item in items], batch_first=True)
        for name in ("input_ids", "attention_mask")
    }
    return {**found, "labels": torch.tensor([item["labels"] for item in items])}


@pytest.mark.filterwarnings("ignore")
def test_replay_of_sentences_of_any_length_is_that_of_padded_ones(tmp_path: Any) -> None:
    results = []
    source = DatasetSource(Ragged(0), Ragged(1))
    scenario = ClassIncremental(num_tasks=3, class_order=range(6))
    ragged = ContinualDataModule(source, scenario, collate_fn=padded, batch_size=8, epochs_per_task=(1, 2, 1))
    for stream in (texts(), ragged):
        torch.manual_seed(0)
        module = HuggingFaceTexts("sgd")
        Trainer(
            max_epochs=-1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            callbacks=[ExperienceReplay(12, 5), ContinualEvaluation(report=False, print_table=False)],
        ).fit(module, datamodule=stream)
        results.append({n: v for n, v in module.state_dict().items() if v.is_floating_point()})
    for name, value in results[0].items():
        assert_close(results[1][name], value, rtol=1e-4, atol=1e-5)
