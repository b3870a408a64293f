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
from lightning_cl.nn.replay import ReplayBuffer, join, padded_alike


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
    options: dict[str, Any] = {"collate_fn": padded, "batch_size": 8, "epochs_per_task": (1, 2, 1)}
    ragged = [(ContinualDataModule(source, scenario, **options), store) for store in ("index", "sample")]
    for stream, store in ((texts(), "index"), *ragged):
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
            callbacks=[ExperienceReplay(12, 5, store=store), ContinualEvaluation(report=False, print_table=False)],
        ).fit(module, datamodule=stream)
        results.append({n: v for n, v in module.state_dict().items() if v.is_floating_point()})
    for name, value in results[0].items():
        assert_close(results[1][name], value, rtol=1e-4, atol=1e-5)
        assert_close(results[2][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("left", [False, True])
def test_a_memory_keeps_samples_of_any_length(left):
    """Each comes back as it went in, whether longer or shorter ones came before or after it."""
    torch.manual_seed(0)
    buffer, given = ReplayBuffer(8, seed=1), {}
    for label, length in enumerate((2, 5, 3, 4)):
        ids = torch.randint(10, 99, (2, length))
        mask = torch.ones(2, length, dtype=torch.long)
        mask[1, 0 if left else -1] = 0
        ids[mask == 0] = 7
        labels = torch.full((2,), label)
        buffer.add({"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}, labels)
        given[label] = [row[keep].tolist() for row, keep in zip(ids, mask > 0, strict=True)]
    items, labels = buffer.sample(8)
    assert items["input_ids"].shape == (8, 5)
    keep = items["attention_mask"] > 0
    for ids, kept, targets, label in zip(items["input_ids"], keep, items["labels"], labels.tolist(), strict=True):
        assert ids[kept].tolist() in given[label]
        assert targets[kept].tolist() == ids[kept].tolist()
        assert (ids[~kept].unique().tolist(), targets[~kept].unique().tolist()) in (([7], [-100]), ([], []))
        assert kept[-1 if left else 0]
    again = ReplayBuffer(8)
    again.load_state_dict(buffer.state_dict())
    assert torch.equal(again.read(torch.arange(8))["input_ids"], buffer.read(torch.arange(8))["input_ids"])


def test_token_ids_without_a_mask_are_refused_where_they_differ_in_length():
    short, long = ({"input_ids": torch.ones(2, n, dtype=torch.long)} for n in (3, 5))
    assert padded_alike(short, short) == (short, short)
    with pytest.raises(ValueError, match=r"a batch of 3 token ids a sample and one of 5 .* no `attention_mask`"):
        padded_alike(short, long)
