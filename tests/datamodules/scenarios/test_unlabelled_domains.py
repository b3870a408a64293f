"""Domains without labels: which labels the learner gets, what the stream tells of their classes, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_cl.datamodules import ArraySource, ContinualDataModule, Scenario, UnlabelledDomains
from lightning_cl.datamodules.task import HIDDEN_LABEL, StreamInfo

LABELS, DOMAINS = np.arange(24) % 4, np.arange(24) // 8


def stream(scenario: Scenario, **options) -> ContinualDataModule:
    images = np.arange(24, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    source = ArraySource((images, LABELS), (images, LABELS), train_domains=DOMAINS, test_domains=DOMAINS)
    made = ContinualDataModule(source, scenario, batch_size=8, **options)
    made.setup()
    return made


@pytest.mark.parametrize("keys", [None, ("pixels", "species")])
def test_no_label_of_an_unlabelled_domain_is_in_a_batch(keys) -> None:
    made = stream(UnlabelledDomains(["0", "2", "1"]), batch_keys=keys)
    for view in ("train", "eval"):
        for task in range(3):
            for batch in made.train_loader_for(task, view):
                given = batch["species"] if keys else batch[1]
                images = batch["pixels"] if keys else batch[0]
                index = (images[:, 0, 0, 0] * 255).round().long()
                expected = torch.from_numpy(LABELS)[index] if task == 0 else torch.full_like(given, HIDDEN_LABEL)
                assert torch.equal(given, expected)
                assert set(DOMAINS[index].tolist()) == {[0, 2, 1][task]}
    assert (made.batch(torch.arange(24))["species" if keys else 1][8:] == HIDDEN_LABEL).all()


def test_evaluation_has_labels_and_the_stream_tells_no_classes() -> None:
    made = stream(UnlabelledDomains())
    assert made.info.classes_per_task == ((0, 1, 2, 3),) * 3
    assert made.info.unlabelled_tasks == (1, 2)
    assert [made.task_at(t).labelled for t in range(3)] == [True, False, False]
    assert [made.task_at(t).new_classes for t in (1, 2)] == [(), ()]
    assert made.table().label.tolist() == [*LABELS[:8], *[HIDDEN_LABEL] * 16]
    assert made.num_validated_tasks == 3
    data = made.eval_data("val")
    assert all(sorted(set(data.labels[part].tolist())) == [0, 1, 2, 3] for part in data.index)
    batch = next(iter(made.val_dataloader()))
    assert sorted(set(batch[1].tolist())) == [0, 1, 2, 3]
    assert StreamInfo.from_state_dict(made.info.state_dict()) == made.info


def test_a_model_that_is_trained_already_knows_all_classes() -> None:
    made = stream(UnlabelledDomains(labelled=0))
    assert made.info.unlabelled_tasks == (0, 1, 2)
    assert made.task_at(0).seen_classes == (0, 1, 2, 3)


def test_held_out_training_data_keep_their_labels() -> None:
    made = stream(UnlabelledDomains(), val_split=0.3)
    held = torch.cat(list(made.eval_data("val").index))
    assert not bool(made.layout.hidden[held].any())
    labels = torch.cat([batch[1] for batch in made.val_dataloader()])
    assert int(labels.min()) >= 0


class Twice(UnlabelledDomains):
    """The first domain comes again, without its labels."""

    def train_tasks(self, *args) -> list[torch.Tensor]:
        tasks = super().train_tasks(*args)
        return [tasks[0], tasks[0], tasks[2]]


def test_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="`labelled` is -1"):
        UnlabelledDomains(labelled=-1)
    with pytest.raises(
        ValueError, match=r"`labelled` is 3, but the source has 3 domain\(s\), so none would be without"
    ):
        stream(UnlabelledDomains(labelled=3))
    with pytest.raises(ValueError, match="8 training samples are both in tasks with labels and in tasks without"):
        stream(Twice())
