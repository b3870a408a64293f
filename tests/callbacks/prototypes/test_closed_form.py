"""Closed-form heads in runs: exact in any order and batches, one pass of each image, memory as promised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conformance.modules import PLAIN
from conformance.runs import attached, train
from conformance.streams import make_stream
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.callbacks import ACIL, GACIL, ContinualCallback, FeCAM, RanPAC, RunCost, StreamingLDA
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule, FewShot, SiBlurry
from lightning_cl.nn.heads import RIDGES
from lightning_cl.nn.heads.ridge_choice import held_out

pytestmark = pytest.mark.filterwarnings("ignore")
ONE_EPOCH = {"epochs_per_task": 1}
#: Methods that count in any order, with the part and the tensors that must come out the same.
EXACT = [
    (GACIL(features=48), ("gram", "cross", "counts")),
    (RanPAC(features=48, ridge=10.0), ("gram", "cross", "counts")),
    (FeCAM(), ("sums", "products", "counts")),
]


def part_of(run: Any) -> Any:
    (part,) = run.module.continual.parts.values()
    return part


def all_features(run: Any, split: str = "train") -> tuple[Tensor, Tensor]:
    """``(N, D)`` float64 features of all images on evaluation transforms, and their labels."""
    index = torch.cat(list(run.stream.layout.train_index)).unique()
    images, labels = run.stream.batch(index, "eval")
    with torch.no_grad():
        return run.module.head_input(images.to(run.module.dtype)).double(), labels


@pytest.mark.parametrize(("method", "names"), EXACT, ids=lambda value: getattr(type(value), "__name__", None))
def test_any_stream_gives_the_same_head(method: Any, names: tuple[str, ...], tmp_path: Path) -> None:
    """Class by class, all at once, and Si-Blurry, in batches of 8, 5 and 3, in 64 bits."""
    streams: list[dict[str, Any]] = [
        {**ONE_EPOCH},
        {**ONE_EPOCH, "scenario": ClassIncremental(2, class_order=[5, 3, 1, 0, 2, 4]), "batch_size": 5},
        {"scenario": SiBlurry(3, seed=4), "batch_size": 3, **ONE_EPOCH, "updates_per_batch": 2},
    ]
    banks = []
    for options in streams:
        run = train(PLAIN, type(method)(**method.config()), tmp_path, stream_options=options, precision="64-true")
        banks.append(part_of(run).bank)
    assert banks[0].counts.tolist() == [13.0, 14.0] * 3
    for other in banks[1:]:
        for name in names:
            expected = getattr(banks[0], name)
            assert_close(getattr(other, name), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_gacil_is_joint_ridge_regression(tmp_path: Path) -> None:
    run = train(PLAIN, GACIL(features=48, ridge=3.0, fits_per_batch=2), tmp_path, precision="64-true")
    features, labels = all_features(run)
    bank = part_of(run).bank
    assert bank.projection.abs().max() <= 32**-0.5
    hidden = (features @ bank.projection.double()).relu()
    left = torch.cat([hidden, 1.5**0.5 * torch.eye(48).double()])  # two fits are half of the ridge
    right = torch.cat([F.one_hot(labels, 6).double(), torch.zeros(48, 6).double()])
    expected = torch.linalg.lstsq(left, right).solution
    assert_close(bank.solution, expected, rtol=1e-8, atol=1e-10)
    run.module.double().eval()
    images, _ = run.stream.batch(torch.arange(81), "eval")
    assert_close(run.module(images.double()), hidden @ expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("faithful", [False, True])
def test_ranpac_chooses_the_ridge_on_a_fifth_of_the_task(faithful: bool, tmp_path: Path) -> None:
    """The last task's choice, typed out; then all samples are fitted with it."""
    run = train(PLAIN, RanPAC(features=20, faithful=faithful), tmp_path, precision="64-true")
    features, labels = all_features(run)
    bank = part_of(run).bank
    hidden = (features @ bank.projection.double()).relu()
    onehot = F.one_hot(labels, 6).double()
    task = (labels >= 4).nonzero().flatten()
    apart = task[held_out(task)]
    assert 2 < len(apart) < 12
    known = torch.ones(81, dtype=torch.bool)
    known[apart] = False
    if faithful:
        known &= labels >= 4
    gram, cross = hidden[known].T @ hidden[known], hidden[known].T @ onehot[known]
    scale = 1.0 if faithful else float(gram.diagonal().mean())
    errors = []
    for ridge in RIDGES:
        solution = torch.linalg.solve(gram + scale * ridge * torch.eye(20).double(), cross)
        errors.append(float((hidden[apart] @ solution - onehot[apart]).square().mean()))
    best = scale * RIDGES[errors.index(min(errors))]
    assert_close(bank.ridge, best, rtol=1e-6, atol=0)
    expected = torch.linalg.solve(hidden.T @ hidden + best * torch.eye(20).double(), hidden.T @ onehot)
    assert_close(bank.solution, expected, rtol=1e-6, atol=1e-8)


def test_ranpac_without_projection_and_ridge_goes_to_class_sums(tmp_path: Path) -> None:
    """A huge ridge leaves the order of ``h . Q_c``."""
    run = train(PLAIN, RanPAC(features=48, ridge=1e12), tmp_path, stream_options=ONE_EPOCH)
    features, labels = all_features(run)
    bank = part_of(run).bank
    hidden = (features @ bank.projection.double()).relu()
    sums = hidden.T @ F.one_hot(labels, 6).double()
    assert torch.equal(bank(features).argmax(1), (hidden @ sums).argmax(1))


class Weights(ContinualCallback):
    """The user's weights and the adapters after each task."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_task_end(self, trainer: Any, pl_module: Any, task: Any) -> None:
        self.states.append({name: p.detach().clone() for name, p in pl_module.named_parameters()})


@pytest.mark.parametrize("first_task", ["adapter", "ssf"])
def test_ranpac_tunes_the_first_task_only(first_task: Any, tmp_path: Path) -> None:
    watch = Weights()
    method = RanPAC(features=48, first_task=first_task, rank=4, dropout=0.0)
    run = train(PLAIN, method, tmp_path, callbacks=[watch])
    plain = dict(PLAIN.build("adamw", 0.0).named_parameters())
    first, *later = watch.states
    assert all(torch.equal(state[name], value) for state in later for name, value in first.items())
    assert float(first["continual.parts.ranpac.first.scale"]) != 1.0
    features, labels = all_features(run)
    with part_of(run).first.adapters.selected(None):
        untuned, _ = all_features(run)
    assert (features - untuned).abs().max() > 1e-2
    bank = part_of(run).bank
    hidden = (features @ bank.projection.double()).relu()
    assert_close(bank.cross, hidden.T @ F.one_hot(labels, 6).double(), rtol=1e-4, atol=1e-3)
    assert {name for name in plain if "head" not in name} < set(first)


@pytest.mark.parametrize(
    "method", [ACIL(features=48, first_task="all"), FeCAM(first_task="all")], ids=["acil", "fecam"]
)
def test_the_whole_network_learns_the_first_task(method: Any, tmp_path: Path) -> None:
    watch = Weights()
    run = train(PLAIN, method, tmp_path, callbacks=[watch], optimizer="sgd")
    first, *later = watch.states
    assert all(torch.equal(state[name], value) for state in later for name, value in first.items())
    start = dict(attached(PLAIN, type(method)(**method.config())).named_parameters())
    assert not torch.equal(start["net.blocks.0.mlp.fc1.weight"], first["net.blocks.0.mlp.fc1.weight"])
    assert part_of(run).bank.counts.tolist() == [13.0, 14.0] * 3
    features, labels = all_features(run)
    assert part_of(run).bank(features).argmax(1).eq(labels).double().mean() > 0.6


@pytest.mark.parametrize(
    ("method", "passes"),
    [(GACIL(features=48), 1), (RanPAC(features=48), 1), (FeCAM(), 1), (StreamingLDA(), 1)],
    ids=lambda value: getattr(type(value), "__name__", None),
)
def test_each_image_passes_the_network_once(method: Any, passes: int, tmp_path: Path) -> None:
    cost = RunCost(latency=False)
    train(PLAIN, method, tmp_path, callbacks=[cost], num_sanity_val_steps=0)  # 1, 2 and 1 epochs
    facts = cost.report_facts()
    assert (facts["forward_samples"], facts["evaluated_samples"]) == (81 * passes, 42)
    assert facts["backward_samples"] == 0


def test_after_the_tuned_task_too(tmp_path: Path) -> None:
    """27 images in one epoch of training; then all once, and evaluation images once."""
    cost, method = RunCost(latency=False), RanPAC(features=48, first_task="adapter", rank=4)
    train(PLAIN, method, tmp_path, callbacks=[cost], num_sanity_val_steps=0)
    facts = cost.report_facts()
    assert (facts["forward_samples"], facts["evaluated_samples"]) == (27 + 81, 42)


def state_bytes(method: Any) -> int:
    module: Any = attached(PLAIN, method)
    (part,) = module.continual.parts.values()
    return sum(t.numel() * t.element_size() for t in part.bank.state_dict().values())


def test_memory_is_what_the_page_says() -> None:
    """D 32, C 6, M 48."""
    ridge = 8 * (48 * 48 + 48 * 6 + 6 + 1) + 4 * 32 * 48
    means = 8 * (6 * 32 + 6)
    assert state_bytes(GACIL(features=48)) == ridge
    assert state_bytes(RanPAC(features=48)) == ridge
    assert state_bytes(StreamingLDA()) == means + 8 * 32 * 32
    for kind, size in (("class", 6 * 32 * 32), ("shared", 32 * 32), ("diagonal", 6 * 32)):
        assert state_bytes(FeCAM(kind)) == means + 8 * size


def test_more_features_than_memory() -> None:
    needed = f"{24 * 10**12 + 10**6 * (16 * 6 + 4 * 32):,}"
    with pytest.raises(ValueError, match=rf"RanPAC need {needed} bytes, but cpu has .*; give fewer `features`"):
        attached(PLAIN, RanPAC(features=10**6))
    with pytest.raises(ValueError, match=r"GACIL need .* bytes"):
        attached(PLAIN, GACIL(features=10**6))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GACIL(ridge=-1.0), "`ridge` is -1.0; give at least 0"),
        (lambda: RanPAC(ridge=-1.0), "`ridge` is -1.0; give at least 0"),
        (lambda: RanPAC(features=0), "`features` is 0; give at least 1"),
        (lambda: RanPAC(first_task="vpt"), "`first_task` is 'vpt'; give one of 'none', 'adapter', 'ssf'"),  # type: ignore[arg-type]
        (lambda: RanPAC(logits="cos"), "`logits` is 'cos'; give one of"),  # type: ignore[arg-type]
        (lambda: StreamingLDA(shrinkage=0.0), "`shrinkage` is 0.0; give a number above 0"),
        (lambda: FeCAM("full"), "`covariance` is 'full'; give one of 'class', 'shared', 'diagonal'"),  # type: ignore[arg-type]
        (lambda: FeCAM(tukey=0.0), "`tukey` is 0.0; give a number above 0"),
    ],
)
def test_bad_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_streams_that_a_method_cannot_take(tmp_path: Path) -> None:
    online = {"scenario": SiBlurry(3, seed=4), **ONE_EPOCH}
    with pytest.raises(ValueError, match="RanPAC chooses the ridge when a task ends, but in a stream of one"):
        train(PLAIN, RanPAC(features=48), tmp_path, stream_options=online)
    with pytest.raises(ValueError, match="FeCAM stops learning when a task ends"):
        train(PLAIN, FeCAM(first_task="all"), tmp_path, stream_options=online)
    with pytest.raises(ValueError, match=r"ACIL is for tasks of disjoint classes, but .* come in several; use GACIL"):
        train(PLAIN, ACIL(features=48), tmp_path, stream_options=online)
    single = {"scenario": FewShot(3, 3, 1), **ONE_EPOCH}
    with pytest.raises(ValueError, match=r"the classes \[.*\] have one training sample each, from which no covariance"):
        train(PLAIN, FeCAM(), tmp_path, stream_options=single)
    train(PLAIN, FeCAM("shared"), tmp_path, stream_options=single)


def test_any_network_with_a_class_head(tmp_path: Path) -> None:
    """No ViT: a linear layer behind pixels."""
    from lightning.pytorch import LightningModule, Trainer
    from torch import nn

    class Pixels(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc = nn.Flatten(), nn.Linear(256, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.body(x))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    for method in (GACIL(features=64), RanPAC(features=64), FeCAM(), StreamingLDA()):
        module = Pixels()
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=-1,
            enable_model_summary=False, default_root_dir=tmp_path, callbacks=[method], num_sanity_val_steps=0,
        )  # fmt: skip
        stream: ContinualDataModule = make_stream(**ONE_EPOCH)
        trainer.fit(module, datamodule=stream)
        assert isinstance(stream.source, ArraySource)
        images, labels = stream.batch(torch.arange(81), "eval")
        with torch.no_grad():
            assert module.eval()(images).argmax(1).eq(labels).double().mean() > 0.9, type(method).__name__
