"""The language-guided head in runs: alone, beside other methods, on processes, and after a resume."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conformance.runs import in_forked_processes
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny import tiny_vit
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from lightning_cl import restore
from lightning_cl.callbacks import (
    L2P,
    CODAPrompt,
    ContinualCallback,
    ContinualEvaluation,
    DualPrompt,
    ExperienceReplay,
    FineTuning,
    LanguageGuidedHead,
    OnePrompt,
    PrototypeClassifier,
    VirtualOutlierRegularizer,
)
from lightning_cl.class_embeddings import OrthogonalTargets, RandomTargets, TensorTargets
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule, SiBlurry

pytestmark = pytest.mark.filterwarnings("ignore")
CLASSES = 6
NAMES = ("zero", "one", "two", "three", "four", "five")


class Module(LightningModule):
    """A ViT as a user trains it; or a network that ends in a ReLU."""

    def __init__(self, vit: bool = True, optimizer: str = "adamw") -> None:
        super().__init__()
        self.net: Any = tiny_vit(num_classes=CLASSES).float()
        if not vit:
            body = [nn.Flatten(), nn.Linear(3 * 32 * 32, 32), nn.ReLU()]
            self.net = nn.Sequential(*body, nn.Linear(32, CLASSES))
        self.kind = optimizer

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        if self.kind == "sgd":
            return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)
        return torch.optim.AdamW(self.parameters(), lr=0.003, weight_decay=0.1)


def make_stream(scenario: Any = None, **options: Any) -> ContinualDataModule:
    """Each class has its own bright quarter or colour."""
    rng, splits = np.random.default_rng(0), []
    for each in (12, 4):
        labels = np.repeat(np.arange(CLASSES), each)
        images = rng.integers(0, 90, (len(labels), 32, 32, 3))
        for image, label in zip(images, labels, strict=True):
            image[(label % 2) * 16 : (label % 2) * 16 + 16, :, label // 2] += 150
        splits.append((images.astype(np.uint8), labels))
    source = ArraySource(*splits, class_names=NAMES, augment="none")
    return ContinualDataModule(
        source, scenario or ClassIncremental(3), **{"batch_size": 8, "epochs_per_task": 2, **options}
    )


class Watch(ContinualCallback):
    """The rows of the head after every task, and whether anything of it is optimised."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.known: list[list[int]] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        held = {id(p) for o in trainer.optimizers for g in o.param_groups for p in g["params"] if p.requires_grad}
        assert not held & {id(p) for p in pl_module.continual_head.parameters()}
        assert id(pl_module.language_head.weight) not in held
        assert "language_head.weight" not in dict(pl_module.named_parameters())

    def on_task_end(self, trainer: Trainer, pl_module: Any, task: Any) -> None:
        self.rows.append(pl_module.language_head.weight.clone())
        self.known.append(pl_module.language_head.known.nonzero().flatten().tolist())


def run(*callbacks: Any, module: Any = None, stream: Any = None, ckpt_path: Any = None, **trainer: Any) -> Any:
    seed_everything(0, verbose=False)
    evaluation = ContinualEvaluation(report=False, print_table=False)
    options = {
        "max_epochs": -1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "devices": 1,
        "enable_model_summary": False, "num_sanity_val_steps": 0,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
    }  # fmt: skip
    fitted = Trainer(**{**options, **trainer}, callbacks=[*callbacks, evaluation])
    module = module or Module()
    fitted.fit(module, datamodule=stream or make_stream(), ckpt_path=ckpt_path)
    module.evaluation = evaluation
    return module


@pytest.mark.parametrize("dim", [48, 24, 96], ids=["equal", "lift", "project"])
def test_only_the_network_learns(dim):
    watch, stream = Watch(), make_stream()
    module = run(LanguageGuidedHead(RandomTargets(dim)), watch, stream=stream)
    assert module.language_head.match == ("project" if dim > 48 else "lift")
    held = [c for classes in stream.info.classes_per_task for c in classes]
    assert watch.known == [sorted(held[: 2 * t + 2]) for t in range(3)]
    for known, before, after in zip(watch.known, watch.rows, watch.rows[1:], strict=False):
        assert torch.equal(after[known], before[known])
    assert_close(module.language_head.weight.norm(dim=1), torch.ones(CLASSES), rtol=0, atol=1e-6)
    seed_everything(0, verbose=False)
    fresh = Module()
    assert torch.equal(module.net.head.weight, fresh.net.head.weight)
    assert not torch.equal(module.net.blocks[0].mlp.fc1.weight, fresh.net.blocks[0].mlp.fc1.weight)


def test_it_learns_and_answers_by_names():
    module = run(LanguageGuidedHead(OrthogonalTargets(48)), stream=make_stream(ClassIncremental(1), epochs_per_task=12))
    assert float(module.evaluation.matrix()[0, 0]) > 0.8
    assert float(module.language_head.scale) == pytest.approx(np.log(5 * 0.99 / 0.01), rel=1e-4)


COMPANY = {
    "fine-tuning": lambda: [FineTuning(train_mask="seen")],
    "CODA-Prompt": lambda: [CODAPrompt(pool_size=6, prompt_length=4, layers=(0, 1))],
    "DualPrompt": lambda: [DualPrompt(general_length=2, expert_length=2, general_layers=(0,), expert_layers=(1,))],
    "L2P": lambda: [L2P(pool_size=6, prompt_length=2, top_k=2)],
    "OnePrompt": lambda: [OnePrompt(layers=(0, 1), lengths=4)],
    "replay": lambda: [ExperienceReplay(memory_size=12, batch_size=4)],
    "prompts and replay": lambda: [OnePrompt(layers=(0,), lengths=4), ExperienceReplay(memory_size=12, batch_size=4)],
}


@pytest.mark.parametrize(
    ("name", "first"), [(name, turn % 2 == 0) for turn, name in enumerate(COMPANY)], ids=lambda v: str(v)
)
def test_it_plugs_into_other_methods(name, first):
    watch, own = Watch(), LanguageGuidedHead(RandomTargets(48))
    company = [own, *COMPANY[name]()] if first else [*COMPANY[name](), own]
    module = run(*company, watch)
    assert torch.equal(watch.rows[-1][watch.known[0]], watch.rows[0][watch.known[0]])
    matrix = module.evaluation.matrix()
    assert not matrix.tril().isnan().any()
    if "prompt" in name.lower():
        moved = [p for n, p in module.named_parameters() if ".provider." in n and p.requires_grad]
        assert moved
        assert not any(p.requires_grad for p in module.net.blocks.parameters())


def test_classes_of_an_online_stream_are_named_as_they_arrive():
    class Arrivals(ContinualCallback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            known = pl_module.language_head.known.nonzero().flatten().tolist()
            assert known == list(trainer.datamodule.exposed_classes)
            counts.append(len(known))

    class Asked(RandomTargets):
        def targets(self, names):
            asked.extend(names)
            return super().targets(names)

    counts: list[int] = []
    asked: list[str] = []
    run(
        LanguageGuidedHead(Asked(48)),
        Arrivals(),
        stream=make_stream(SiBlurry(2), epochs_per_task=1, batch_size=4),
    )
    assert counts[0] < counts[-1] == CLASSES
    assert sorted(asked) == sorted(NAMES)  # each once


@pytest.mark.parametrize("train_mask", ["seen", "task"])
def test_which_classes_compete_in_training(train_mask):
    class Competing(ContinualCallback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            finite = pl_module(batch[0]).gt(-500).all(0).nonzero().flatten().tolist()
            task = trainer.datamodule.task
            assert finite == sorted(task.classes if train_mask == "task" else task.seen_classes)
            counts.append(len(finite))

    counts: list[int] = []
    run(LanguageGuidedHead(RandomTargets(48), train_mask=train_mask), Competing())
    assert sorted(set(counts)) == ([2] if train_mask == "task" else [2, 4, 6])


def test_a_killed_run_goes_on_with_the_same_bits_and_without_the_texts(tmp_path):
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=8, save_top_k=-1)
    expected = run(LanguageGuidedHead(OrthogonalTargets(48)), saving)

    class Gone(OrthogonalTargets):
        def targets(self, names):
            assert set(names) & {"zero", "one", "two", "three", "four", "five"}
            asked.extend(names)
            return super().targets(names)

    asked: list[str] = []
    resumed = run(LanguageGuidedHead(Gone(48)), ckpt_path=tmp_path / "step=8.ckpt")
    for (name, a), b in zip(resumed.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert len(asked) == 2  # those of the last task; the others are in the checkpoint


def test_a_restored_model_needs_no_text_model(tmp_path):
    class Never(RandomTargets):
        def targets(self, names):
            raise AssertionError("asked for texts")

    saving = ModelCheckpoint(tmp_path, filename="last", save_top_k=1)
    module = run(LanguageGuidedHead(RandomTargets(48)), saving)
    again = restore(tmp_path / "last.ckpt", Module(), [LanguageGuidedHead(Never(48))])
    x = torch.rand(3, 3, 32, 32)
    assert torch.equal(again(x), module.eval()(x))


class OnFirst(RandomTargets):
    """Is asked on the first process alone, whose bits all have."""

    def targets(self, names):
        assert not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
        return super().targets(names)


@pytest.mark.parametrize("dim", [24, 96])
def test_two_processes_equal_one(tmp_path, dim):
    options = {"precision": "64-true"}

    def rank() -> None:
        module = run(
            LanguageGuidedHead(OnFirst(dim)), module=Module(optimizer="sgd"), strategy="ddp", devices=2, **options
        )
        torch.save(module.state_dict(), tmp_path / f"{module.trainer.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    expected = run(LanguageGuidedHead(RandomTargets(dim)), module=Module(optimizer="sgd"), **options).state_dict()
    ranks = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1)]
    for name, value in expected.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        assert_close(ranks[0][name], value, rtol=1e-5, atol=1e-7)


def test_features_that_cannot_reach_their_targets_are_told():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(LanguageGuidedHead(RandomTargets(32)), module=Module(vit=False))
    assert sum("ends in a ReLU" in str(w.message) for w in caught) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(LanguageGuidedHead(RandomTargets(32), match="project"), module=Module(vit=False))
    assert not any("ends in a ReLU" in str(w.message) for w in caught)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"match": "stretch"}, "`match` is 'stretch'; give one of 'auto', 'lift'"),
        ({"similarity": "l2"}, "`similarity` is 'l2'"),
        ({"scale": "big"}, "`scale` is 'big'; give a number above 0"),
        ({"scale": 0.0}, "`scale` is 0.0"),
    ],
)
def test_options_that_are_unknown(options, words):
    with pytest.raises(ValueError, match=words):
        LanguageGuidedHead(**options)


def test_targets_of_an_unknown_kind():
    with pytest.raises(ValueError, match="`targets` is 'glove'; give \"minilm\""):
        run(LanguageGuidedHead("glove"))


def test_a_class_without_a_vector_is_named():
    known = {name: torch.randn(48) for name in NAMES[:-1]}
    with pytest.raises(ValueError, match=r"have no vector for 1 class\(es\), such as 'five'"):
        run(LanguageGuidedHead(TensorTargets(known)))


def test_classes_of_the_same_name_are_refused():
    same = dict.fromkeys(NAMES, torch.ones(48))
    with pytest.raises(ValueError, match="have the same target"):
        run(LanguageGuidedHead(TensorTargets(same)))
    stream = make_stream()
    stream.setup()
    first, _, last = (held[0] for held in stream.info.classes_per_task)  # which come in different tasks
    vectors = {name: torch.randn(48) for name in NAMES}
    vectors[NAMES[last]] = 2 * vectors[NAMES[first]]
    with pytest.raises(ValueError, match=f"'{NAMES[min(first, last)]}' and '{NAMES[max(first, last)]}' have the same"):
        run(LanguageGuidedHead(TensorTargets(vectors)))


@pytest.mark.parametrize("other", [PrototypeClassifier, VirtualOutlierRegularizer])
def test_methods_that_make_the_head_their_own(other):
    with pytest.raises(ValueError, match="LanguageGuidedHead"):
        run(LanguageGuidedHead(RandomTargets(48)), other())


def test_the_report_says_where_the_targets_came_from():
    config = LanguageGuidedHead(RandomTargets(48, seed=3)).config()
    assert config["targets"] == {"class": "RandomTargets", "size": 48, "seed": 3}
    assert Path(LanguageGuidedHead("minilm").config()["targets"]).name == "minilm"
