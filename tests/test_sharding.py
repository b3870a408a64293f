"""A frozen backbone that is shared out over two processes: the result of one, in half of the memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conformance.methods import METHODS, make, takes
from conformance.modules import PLAIN
from conformance.runs import in_forked_processes, train
from conformance.streams import NUM_CLASSES
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.testing import assert_close

from lightning_cl.callbacks import (
    CODAPrompt,
    ContinualCheckpoint,
    ContinualMethod,
    FineTuning,
    InfLoRA,
    ShardedBackbone,
)
from lightning_cl.datamodules import ClassIncremental
from lightning_cl.nn.sharding import local_numel

QUICK = ("CODAPrompt",)
OPTIONS = {"optimizer": "sgd", "precision": "64-true"}  # rounding stays small, a gradient of a wrong size does not


def freezes_backbone(method: type[ContinualMethod]) -> bool:
    """Else it trains the whole network, or the towers of CLIP, and is refused; see below."""
    if method.__name__ in ("InfLoRA", "SDLoRA"):  # they change the layers that would be shared out, and are refused
        return False
    return method.__name__ == "PrototypeClassifier" or (takes(method, "backbone") and method.family == "vit")


SHARDED = [
    pytest.param(method, id=method.__name__, marks=() if method.__name__ in QUICK else pytest.mark.slow)
    for method in METHODS
    if freezes_backbone(method)
]


@pytest.mark.parametrize("method", SHARDED)
def test_two_processes_that_share_the_backbone_equal_one(method, tmp_path):
    # 7 test images a task, 4 of them for one process: it knows all queries of a batch, the other does not.
    scenario = ClassIncremental(num_tasks=NUM_CLASSES, class_order=range(NUM_CLASSES))
    options = {**OPTIONS, "stream_options": {"scenario": scenario, "epochs_per_task": 1, "eval_batch_size": 8}}

    def rank() -> None:
        run = train(
            PLAIN,
            make(method, pool_size=12),
            tmp_path,
            **options,
            callbacks=[ShardedBackbone()],
            strategy="ddp",
            devices=2,
        )
        blocks = run.module.net.blocks
        whole = sum(p.numel() for p in PLAIN.build("sgd", 0.0).net.blocks.parameters())
        assert local_numel(blocks) < 0.53 * whole  # the norms stay whole
        torch.save(run.result(), tmp_path / f"rank{run.trainer.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    expected = train(PLAIN, make(method, pool_size=12), tmp_path, **options, callbacks=[ShardedBackbone()]).result()
    ranks = [torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1)]
    assert list(ranks[0]) == list(expected)
    for name, value in expected.items():
        assert_close(ranks[0][name], ranks[1][name], rtol=0, atol=0, msg=f"{name} differs between the ranks")
        exact = not name.startswith("module/") or ".blocks." in name
        tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-6, "atol": 1e-8}
        assert_close(ranks[0][name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
def test_checkpoints_are_whole_and_continue_in_two_processes_or_one(tmp_path: Path) -> None:
    """Two processes end in the bits of a run that was not stopped; one, with the whole backbone, nearly so."""

    def fit(**options: object):  # type: ignore[no-untyped-def]
        saving = ContinualCheckpoint(dirpath=tmp_path / "saved")
        # In double precision Lightning restores into single, whatever is shared out.
        callbacks = [ShardedBackbone(), saving]
        return train(PLAIN, make(CODAPrompt), tmp_path, optimizer="sgd", callbacks=callbacks, **options)

    def full() -> None:
        run = fit(strategy="ddp", devices=2)
        torch.save(run.result(), tmp_path / f"full{run.trainer.global_rank}.pt")

    def resumed() -> None:
        run = fit(strategy="ddp", devices=2, ckpt_path=tmp_path / "middle.ckpt")
        torch.save(run.result(), tmp_path / f"resumed{run.trainer.global_rank}.pt")

    assert in_forked_processes(full, count=2) == [0, 0]
    middle = next(path for path in sorted((tmp_path / "saved").glob("*.ckpt")) if path.name != "last.ckpt")
    saved = torch.load(middle, weights_only=True)
    whole = PLAIN.build("sgd", 0.0).net.blocks[0].attn.qkv.weight
    assert saved["state_dict"]["net.blocks.0.attn.qkv.weight"].shape == whole.shape
    assert all(type(value) is torch.Tensor for value in saved["state_dict"].values())
    middle.rename(tmp_path / "middle.ckpt")
    assert in_forked_processes(resumed, count=2) == [0, 0]
    load = [torch.load(tmp_path / f"{name}0.pt", weights_only=True) for name in ("full", "resumed")]
    assert load[0].keys() == load[1].keys()
    assert [name for name in load[0] if not torch.equal(load[0][name], load[1][name])] == []
    alone = fit(ckpt_path=tmp_path / "middle.ckpt").result()
    for name, value in load[0].items():
        assert_close(alone[name], value, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def refused(tmp_path: Path, message: str, *callbacks: object, strategy: object = "ddp", devices: int = 2) -> None:
    """Every process says so."""

    def rank() -> None:
        with pytest.raises(ValueError, match=message):
            train(PLAIN, *callbacks[:1], tmp_path, callbacks=callbacks[1:], strategy=strategy, devices=devices)

    assert in_forked_processes(rank, count=2) == [0, 0]


def test_a_trained_backbone_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "`attn.qkv` in block 0 is trained, but only a frozen", make(FineTuning), ShardedBackbone())
    refused(tmp_path, "only plain `torch.nn.Linear` layers can be shared out", make(InfLoRA), ShardedBackbone())


def test_strategies_that_split_everything_are_refused(tmp_path: Path) -> None:
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    refused(
        tmp_path, 'CODAPrompt trains must be whole on each; use `strategy="ddp"`', make(CODAPrompt), strategy=strategy
    )


def test_adapters_are_refused() -> None:
    from lightning_cl.nn.sharding import frozen_linears

    class Adapted(torch.nn.Linear):
        pass

    with pytest.raises(ValueError, match="in block 1 is a Adapted, but only plain"):
        frozen_linears(
            [torch.nn.Linear(2, 2).requires_grad_(False), torch.nn.Sequential(Adapted(2, 2)).requires_grad_(False)]
        )
