from __future__ import annotations

import torch

from lightning_cl.datamodules import Joint


def test_one_task_holds_everything():
    labels = torch.tensor([2, 0, 1, 2])
    (task,) = Joint().train_tasks(labels, None, 3, 0)
    assert task.tolist() == [0, 1, 2, 3]
    (part,) = Joint().eval_tasks(labels, None, 3, 0, [[0, 1, 2]])
    assert part.tolist() == [0, 1, 2, 3]
