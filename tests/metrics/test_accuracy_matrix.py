"""Counts add up over batches, processes and restarts to what one pass over the data gives."""

import pickle
import socket
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_cl.metrics import AccuracyMatrix, AverageAccuracy, BackwardTransfer, Forgetting

NUM_TASKS, NUM_CLASSES = 4, 7


def evaluation(seed: int, samples: int = 101) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Stage, prediction, label and task of many samples."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int) -> Tensor:
        return torch.randint(high, (samples,), generator=generator)

    return draw(NUM_TASKS), draw(NUM_CLASSES), draw(NUM_CLASSES), draw(NUM_TASKS - 1)  # the last task stays empty


def feed(metric, samples, rows, batch_size: int) -> None:
    stage, preds, target, task = (column[rows] for column in samples)
    for s in range(NUM_TASKS):
        of_stage = (stage == s).nonzero().flatten()
        for rows in of_stage.split(batch_size):
            metric.update(s, preds[rows], target[rows], task[rows])


def by_hand(samples) -> Tensor:
    acc = torch.full((NUM_TASKS, NUM_TASKS), float("nan"), dtype=torch.float64)
    for i in range(NUM_TASKS):
        for j in range(NUM_TASKS):
            hits = [p == y for s, p, y, t in zip(*samples, strict=True) if s == i and t == j]
            if hits:
                acc[i, j] = sum(map(float, hits)) / len(hits)
    return acc


def assert_same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_matrix_is_the_share_of_hits(batch_size):
    samples = evaluation(0)
    matrix = AccuracyMatrix(NUM_TASKS)
    feed(matrix, samples, torch.arange(101), batch_size)
    assert_same(matrix.compute(), by_hand(samples))
    assert matrix.compute()[:, -1].isnan().all()  # no sample of that task


def test_logits_and_one_task_for_all():
    logits, target = torch.randn(30, 5), torch.randint(5, (30,))
    by_logits, by_labels = AccuracyMatrix(3), AccuracyMatrix(3)
    by_logits.update(1, logits, target, task=2)
    by_labels.update(1, logits.argmax(1), target, torch.full((30,), 2))
    assert_same(by_logits.compute(), by_labels.compute())
    assert by_logits.sizes.tolist() == [0, 0, 30]


def test_before_any_update_it_is_nan_and_warns():
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert AccuracyMatrix(2).compute().isnan().all()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert AverageAccuracy(2).compute().isnan()


def test_permuting_class_ids_changes_nothing():
    stage, preds, target, task = evaluation(1)
    new_id = torch.randperm(NUM_CLASSES)
    matrix, renamed = AccuracyMatrix(NUM_TASKS), AccuracyMatrix(NUM_TASKS)
    feed(matrix, (stage, preds, target, task), torch.arange(101), 10)
    feed(renamed, (stage, new_id[preds], new_id[target], task), torch.arange(101), 10)
    assert_same(matrix.compute(), renamed.compute())


def test_counts_survive_a_restart():
    samples = evaluation(2)
    whole, first, second = (AccuracyMatrix(NUM_TASKS) for _ in range(3))
    feed(whole, samples, torch.arange(101), 10)
    feed(first, samples, torch.arange(40), 10)
    second.update(0, torch.tensor([1]), torch.tensor([1]), 0)  # what was there is replaced
    second.load_counts(*pickle.loads(pickle.dumps(first.counts())))
    feed(second, samples, torch.arange(40, 101), 10)
    assert_same(second.compute(), whole.compute())
    correct, total = first.counts()
    assert correct.dtype == total.dtype == torch.int64
    assert total.sum() == 40


def test_restored_counts_are_read_without_a_warning_and_are_a_copy(recwarn):
    correct, total = torch.tensor([[1, 0], [0, 0]]), torch.tensor([[2, 0], [0, 0]])
    matrix = AccuracyMatrix(2)
    matrix.load_counts(correct, total)
    assert matrix.compute()[0, 0] == 0.5
    correct.zero_()
    assert matrix.counts()[0][0, 0] == 1
    assert not recwarn.list


def test_a_stage_is_evaluated_again():
    matrix = AccuracyMatrix(2)
    hit, miss = torch.tensor([1]), torch.tensor([0])
    matrix.update(0, hit, hit, 0)
    matrix.update(1, miss, hit, 0)
    assert matrix.compute()[1, 0] == 0
    matrix.reset_stage(1)
    assert matrix.compute()[1].isnan().all()  # not the value computed before
    matrix.update(1, hit, hit, 0)
    assert matrix.compute()[:, 0].tolist() == [1, 1]


def test_inference_mode_and_normal_mode_mix():
    """Validation runs in inference mode; tensors made there cannot be changed in place outside it."""
    matrix = AccuracyMatrix(2)
    ones = torch.ones(3, dtype=torch.long)
    with torch.inference_mode():
        matrix.reset()
        matrix.update(0, ones, ones, 0)
        counts = matrix.counts()
    matrix.update(1, ones, ones, 0)
    matrix.reset_stage(0)
    with torch.inference_mode():
        matrix.update(0, ones, ones, 0)
    assert matrix.sizes.tolist() == [3, 0]
    matrix.load_counts(*counts)
    matrix.update(0, ones, ones, 1)
    assert matrix.compute()[0].tolist() == [1, 1]


def test_forward_gives_the_batch_and_keeps_the_sum():
    matrix = AccuracyMatrix(1)
    one, zero = torch.tensor([1]), torch.tensor([0])
    assert matrix(0, one, one, 0) == 1
    assert matrix(0, zero, one, 0) == 0
    assert matrix.compute() == 0.5


def test_a_collection_shares_the_counts():
    samples = evaluation(3)
    names = {"acc": AverageAccuracy(NUM_TASKS), "bwt": BackwardTransfer(NUM_TASKS), "fm": Forgetting(NUM_TASKS)}
    together = MetricCollection(names)
    alone = Forgetting(NUM_TASKS)
    feed(together, samples, torch.arange(101), 9)
    feed(alone, samples, torch.arange(101), 9)
    assert len(together.compute_groups) == 1
    assert_same(together.compute()["fm"], alone.compute())


def test_a_module_that_holds_it_has_nothing_of_it_in_its_checkpoint():
    module = torch.nn.Module()
    module.matrix = AccuracyMatrix(2)
    assert module.state_dict() == {}


def test_wrong_input():
    matrix = AccuracyMatrix(2)
    one = torch.tensor([1])
    for num_tasks in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="`num_tasks`"):
            AccuracyMatrix(num_tasks)
    with pytest.raises(ValueError, match=r"`stage` is 2 but the stream has 2 tasks; give 0\.\.1"):
        matrix.update(2, one, one, 0)
    with pytest.raises(ValueError, match=r"`task` holds \[2\]"):
        matrix.update(0, one, one, 2)
    with pytest.raises(ValueError, match=r"`task` holds \[-1\]"):
        matrix.update(0, one, one, torch.tensor([-1]))
    with pytest.raises(ValueError, match="do not agree"):
        matrix.update(0, torch.ones(3), one, 0)
    with pytest.raises(ValueError, match="another stream"):
        matrix.load_counts(torch.zeros(3, 3), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="exchanged"):
        matrix.load_counts(torch.ones(2, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="`stage`"):
        matrix.reset_stage(-1)
    assert matrix.total.sum() == 0  # a refused batch leaves no trace


def on_two_processes(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    samples = evaluation(4)
    rows = torch.arange(13) if rank else torch.arange(13, 101)  # uneven shards
    matrix, fm = AccuracyMatrix(NUM_TASKS), Forgetting(NUM_TASKS)
    for metric in (matrix, fm):
        feed(metric, samples, rows, 10)
    result = {"matrix": matrix.compute(), "fm": fm.compute(), "counts": matrix.counts(), "sizes": matrix.sizes}
    resumed = AccuracyMatrix(NUM_TASKS)
    resumed.load_counts(*result["counts"])
    result["resumed"] = resumed.counts()  # not twice as much, which the accuracies would not show
    result["own"] = matrix.total.sum()  # this process still has its share only
    fm.plot()
    torch.save(result, f"{out}/{rank}.pt")
    dist.destroy_process_group()


def test_uneven_shards_on_two_processes_are_one_matrix(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    method = "fork" if sys.platform == "linux" else "spawn"  # a fork need not import torch again
    mp.start_processes(on_two_processes, args=(port, str(tmp_path)), nprocs=2, start_method=method)
    samples = evaluation(4)
    matrix, fm = AccuracyMatrix(NUM_TASKS), Forgetting(NUM_TASKS)
    for metric in (matrix, fm):
        feed(metric, samples, torch.arange(101), 10)
    for rank, own in ((0, 88), (1, 13)):
        result = torch.load(tmp_path / f"{rank}.pt")
        assert_same(result["matrix"], matrix.compute())
        assert_same(result["fm"], fm.compute())
        assert_same(result["sizes"], matrix.sizes)
        for counts in (result["counts"], result["resumed"]):
            assert all(a.equal(b) for a, b in zip(counts, matrix.counts(), strict=True))
        assert result["own"] == own


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_update_does_not_wait_for_the_device():
    matrix = AccuracyMatrix(3).to("cuda")
    logits, target = torch.randn(64, 5, device="cuda"), torch.randint(5, (64,), device="cuda")
    task = torch.randint(3, (64,), device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        matrix.update(1, logits, target, task)
        matrix.update(2, logits, target, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert matrix.total.sum() == 128
