"""One set of logits, two label spaces."""

import pytest
import torch

from lightning_cl.metrics.functional import class_il_predictions, class_table, mask_logits, task_il_predictions

CLASSES = [[3, 0], [1], [2, 4]]


def test_predictions_are_the_best_of_what_is_allowed():
    logits = torch.randn(50, 5)
    task = torch.arange(50) % 3
    for row, got in zip(logits, class_il_predictions(logits, [3, 0, 1]), strict=True):
        assert got == max([0, 1, 3], key=lambda c: row[c])
    for row, t, got in zip(logits, task, task_il_predictions(logits, task, CLASSES), strict=True):
        assert got == max(CLASSES[t], key=lambda c: row[c])


def test_an_untrained_output_cannot_win():
    logits = torch.tensor([[1.0, 2.0, 99.0]])
    assert class_il_predictions(logits, [0, 1]).tolist() == [1]
    assert task_il_predictions(logits, 0, [[0], [1, 2]]).tolist() == [0]


def test_table_and_mask_say_the_same_as_lists():
    logits = torch.randn(9, 5)
    task = torch.arange(9) % 3
    table = class_table(CLASSES, 5)
    assert table.dtype == torch.bool
    assert [row.nonzero().flatten().tolist() for row in table] == [[0, 3], [1], [2, 4]]
    assert task_il_predictions(logits, task, table).equal(task_il_predictions(logits, task, CLASSES))
    seen = table[:2].any(0)
    assert class_il_predictions(logits, seen).equal(class_il_predictions(logits, torch.tensor([0, 1, 3])))


def test_permuting_class_ids_permutes_predictions():
    logits = torch.randn(40, 5)
    new_id = torch.tensor([4, 2, 0, 1, 3])  # class c is called new_id[c]
    permuted = torch.empty_like(logits)
    permuted[:, new_id] = logits
    task = torch.arange(40) % 3
    renamed = [[int(new_id[c]) for c in classes] for classes in CLASSES]
    assert task_il_predictions(permuted, task, renamed).equal(new_id[task_il_predictions(logits, task, CLASSES)])
    assert class_il_predictions(permuted, renamed[0]).equal(new_id[class_il_predictions(logits, CLASSES[0])])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_mask_keeps_type_and_input(dtype):
    logits = torch.ones(2, 3, dtype=dtype)
    masked = mask_logits(logits, [1])
    assert masked.dtype == dtype
    assert masked.isinf().tolist() == [[True, False, True]] * 2
    assert logits.equal(torch.ones(2, 3, dtype=dtype))


def test_no_sample():
    assert class_il_predictions(torch.empty(0, 3), [0]).shape == (0,)
    assert task_il_predictions(torch.empty(0, 3), torch.empty(0, dtype=torch.long), [[0, 1, 2]]).shape == (0,)


def test_wrong_classes():
    with pytest.raises(ValueError, match="empty"):
        class_il_predictions(torch.zeros(1, 3), [])
    with pytest.raises(ValueError, match=r"classes \[3\] but the logits have 3 columns"):
        class_il_predictions(torch.zeros(1, 3), [0, 3])
    with pytest.raises(ValueError, match=r"Task 1 has classes \[-1\]"):
        task_il_predictions(torch.zeros(1, 3), 0, [[0], [-1]])
    with pytest.raises(ValueError, match="mask has 2 columns"):
        mask_logits(torch.zeros(1, 3), torch.ones(2, dtype=torch.bool))
