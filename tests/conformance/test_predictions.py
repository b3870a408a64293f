"""A prediction is of the image alone; the accuracy matrix counts those predictions."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from .methods import on_cases
from .modules import FOREIGN_DICT, FOREIGN_TUPLE, PLAIN, SPLIT
from .streams import NUM_TASKS

cases = on_cases([PLAIN, SPLIT, FOREIGN_TUPLE, FOREIGN_DICT])


@torch.no_grad()
def logits_of(run, images, batch_size, tasks):
    module = run.module.eval()
    if not run.method.needs_task_identity:
        return torch.cat([module(batch) for batch in images.split(batch_size)])
    parts, rows = [], [(tasks == task).nonzero().flatten() for task in range(NUM_TASKS)]
    for task, members in enumerate(rows):
        module.continual.task = task
        parts += [module(batch) for batch in images[members].split(batch_size)]
    module.continual.task = None
    return torch.cat(parts)[torch.cat(rows).argsort()]


def test_images(stream):
    """All test images as the model gets them, with labels and tasks."""
    data, transform = stream.layout.evaluation["test"], stream.source.eval_transform()
    index = torch.cat(data.index)
    images = torch.stack([transform(stream.source.item("test", int(i))[0]) for i in index])
    return images, data.labels[index], data.task_of[index]


test_images.__test__ = False


def skip_if_batch_dependent(run):
    if getattr(getattr(run.module, "prompts", None), "batch_dependent", False):
        pytest.skip("the method chooses its prompts by a vote over the batch, and says so")


@cases
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_predictions_do_not_depend_on_the_batch(method, case, batch_size, finished):
    run = finished(method, case)
    skip_if_batch_dependent(run)
    images, _, tasks = test_images(run.stream)
    expected = logits_of(run, images, len(images), tasks)
    assert bool(expected.isfinite().all())  # all classes were seen
    assert_close(logits_of(run, images, batch_size, tasks), expected, rtol=1e-5, atol=1e-5)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(batch_size))
    shuffled = logits_of(run, images[order], batch_size, tasks[order])
    assert_close(shuffled, expected[order], rtol=1e-5, atol=1e-5)


@cases
def test_the_matrix_counts_plain_predictions(method, case, finished):
    run = finished(method, case)
    skip_if_batch_dependent(run)
    images, labels, tasks = test_images(run.stream)
    hits = logits_of(run, images, 64, tasks).argmax(1) == labels
    assert run.evaluation.correct["class_il"][-1].tolist() == torch.bincount(tasks[hits], minlength=NUM_TASKS).tolist()
    assert run.evaluation.total[-1].tolist() == torch.bincount(tasks, minlength=NUM_TASKS).tolist()
