"""Heads that are no ``nn.Linear``, and heads that have others beside them: found, masked, and read by methods."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
from lightning.pytorch import Trainer
from timm.models.deit import VisionTransformerDistilled
from tiny import TinyModule, stream_info, task_of
from torch import nn
from torch.testing import assert_close
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

from lightning_cl.callbacks import (
    APER,
    TEEN,
    ContinualEvaluation,
    DERPlusPlus,
    ExperienceReplay,
    FineTuning,
    LanguageGuidedHead,
    PrototypeClassifier,
)
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule
from lightning_cl.training.find_modules import find_auxiliary_heads, find_head

CLASSES = 10


class Cosine(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight))


class Wrapped(nn.Module):
    """As PEFT does it."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A, self.lora_B = nn.Linear(base.in_features, rank), nn.Linear(rank, base.out_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B(self.lora_A(x))


class Distilled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.head_dist = nn.Linear(12, 8), nn.Linear(8, CLASSES), nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return (self.head(x) + self.head_dist(x)) / 2


class Net(TinyModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])


def flat(head: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), head)


def maps(*head: nn.Module) -> nn.Sequential:
    """A convolution, its head, and what makes rows of it."""
    return nn.Sequential(nn.Conv2d(3, 8, 2), *head, nn.Flatten())


def pooled_conv() -> nn.Sequential:
    """As in SqueezeNet."""
    return nn.Sequential(nn.Conv2d(8, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))


#: Network, shape of its images, path of its head, its features.
HEADS = {
    "conv": (lambda: nn.Sequential(nn.AvgPool2d(2), maps(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, CLASSES, 1))), 8),
    "squeezenet": (lambda: maps(pooled_conv()), 8),
    "cosine": (lambda: flat(Cosine(8, CLASSES)), 8),
    "weight_norm": (lambda: flat(nn.utils.parametrizations.weight_norm(nn.Linear(8, CLASSES))), 8),
    "peft": (lambda: flat(Wrapped(nn.Linear(8, CLASSES))), 8),
    "distilled": (lambda: nn.Sequential(nn.Flatten(), Distilled()), 8),
}


def images(kind: str, count: int = 4) -> torch.Tensor:
    size = 4 if kind in ("conv", "squeezenet") else 2
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=HEADS)
def kind(request: Any) -> str:
    return request.param


def module_of(kind: str) -> Net:
    torch.manual_seed(0)
    return Net(HEADS[kind][0]())


def test_logits_of_other_classes_are_masked_and_the_rest_is_as_it_was(kind):
    module, x = module_of(kind).eval(), images(kind)
    before = module(x)
    info = stream_info()
    FineTuning(train_mask="seen").attach_once(module, info)
    module.on_task_start(task_of(info, 0))
    logits = module(x)
    assert_close(logits[:, :2], before[:, :2], rtol=0, atol=0)
    assert bool((logits[:, 2:] < -900).all())  # in both heads, where two are averaged


def test_rows_of_other_classes_stay(kind):
    module, x = module_of(kind), images(kind)
    info = stream_info()
    FineTuning(train_mask="seen").attach_once(module, info)
    module.on_task_start(task_of(info, 0))
    head = module.continual_head
    assert (head.in_features, head.out_features) == (HEADS[kind][1], CLASSES)
    before = head.weight.detach().clone()
    optimizer = module.configure_optimizers()
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()
    assert bool((head.weight[:2] != before[:2]).any())
    if kind != "weight_norm":  # whose rows are made of other parameters
        assert torch.equal(head.weight[2:], before[2:])


@pytest.mark.parametrize("method", [DERPlusPlus, PrototypeClassifier])
def test_methods_read_features_and_logits(kind, method):
    module, x = module_of(kind), images(kind)
    expected = module.eval()(x)
    method(**method.small).attach_once(module, stream_info())
    assert module.head_input(x).shape == (4, HEADS[kind][1])
    with module.recorded() as calls:
        answered = module(x)
    assert calls[0].raw_logits.shape == answered.shape == expected.shape


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", [DERPlusPlus, ExperienceReplay, PrototypeClassifier])
@pytest.mark.parametrize("kind", ["conv", "squeezenet", "cosine", "peft"], indirect=True)
def test_a_stream_is_trained_and_counted(kind, method, tmp_path):
    labels = torch.arange(40) % CLASSES
    x = images(kind, CLASSES)[labels] + 0.1 * torch.randn(40, *images(kind).shape[1:])
    options = {"train_transform": False, "eval_transform": False, "batch_size": 8, "epochs_per_task": 2}
    stream = ContinualDataModule(ArraySource((x, labels), (x, labels), layout="NCHW"), ClassIncremental(5), **options)
    evaluation = ContinualEvaluation(report=False, print_table=False)
    module = module_of(kind).float()
    arguments = {"memory_size": 10, "batch_size": 4} if method is ExperienceReplay else method.small
    trainer = Trainer(
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[method(**arguments), evaluation],
    )
    trainer.fit(module, datamodule=stream)
    batches = [(inputs, targets) for inputs, targets, *_ in stream.test_dataloader()]
    with torch.no_grad():
        right = sum(int((module.eval()(inputs).argmax(-1) == targets).sum()) for inputs, targets in batches)
    assert int(evaluation.correct["class_il"][-1].sum()) == right > 4


def distilled(apart: bool) -> Net:
    """As timm's: trained to answer with both heads ``apart``, or with their mean."""
    torch.manual_seed(0)
    net = VisionTransformerDistilled(
        img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=2, in_chans=3, num_classes=CLASSES
    )
    net.set_distilled_training(apart)
    return Net(net)


def hugging_face_distilled() -> nn.Module:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return DeiTForImageClassificationWithTeacher(DeiTConfig(image_size=8, patch_size=4, num_labels=CLASSES, **shape))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("make", [PrototypeClassifier, TEEN, LanguageGuidedHead, APER])
def test_both_heads_of_a_distilled_model_answer_what_a_method_makes(make, apart, training):
    module, x = distilled(apart=apart), torch.randn(4, 3, 8, 8)
    info = stream_info()
    make(**make.small).attach_once(module, info)
    module.on_task_start(task_of(info, 0))
    module.train(training)
    if make is LanguageGuidedHead:
        module.continual.parts["languageguidedhead"].expose(module, (0, 1))
    answers: list[torch.Tensor] = []
    module.net.head.register_forward_hook(lambda layer, args, output: answers.append(output))
    for _ in range(2):
        found = module(x)
        for answer in found if isinstance(found, tuple) else [found]:
            assert_close(answer, answers[-1])
        assert bool((answers[-1][:, 2:] < -900).all()) or make is PrototypeClassifier  # without samples: all alike
    assert module.continual.answer is None


def test_both_heads_of_a_distilled_model_of_hugging_face_answer_the_same():
    torch.manual_seed(0)
    module, x = Net(hugging_face_distilled()), torch.randn(4, 3, 8, 8)
    PrototypeClassifier().attach_once(module, stream_info())
    bank = module.prototypes
    bank.update(torch.randn(20, 16), torch.arange(20) % CLASSES)
    output = module.eval()(x)
    assert_close(output.logits, bank(module.head_input(x)))
    assert_close(output.distillation_logits, output.cls_logits)


def test_heads_that_are_asked_before_the_head_keep_their_own_logits():
    """As GoogLeNet's, which only help to train."""

    class Early(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.aux1, self.fc = nn.Linear(12, 8), nn.Linear(8, CLASSES), nn.Linear(8, CLASSES)

        def forward(self, x: torch.Tensor) -> Any:
            x = self.body(x)
            early = self.aux1(x)
            return self.fc(x), early

    module, info, x = Net(nn.Sequential(nn.Flatten(), Early())), stream_info(), images("cosine")
    TEEN(**TEEN.small).attach_once(module, info)
    module.on_task_start(task_of(info, 0))
    own = module.net[1]
    for _ in range(2):
        answer, early = module.train()(x)
        assert_close(early[:, :2], nn.functional.linear(own.body(x.flatten(1)), own.aux1.weight, own.aux1.bias)[:, :2])
        assert not torch.allclose(answer[:, :2], early[:, :2])


def test_a_named_sequential_is_its_last_layer():
    net = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 10)), pooled_conv())
    assert find_head(net, 10, "1")[0] == "1.1"
    assert find_head(net, 10, "2") == ("2", net[2])


@pytest.mark.parametrize(
    ("build", "path", "others"),
    [
        (lambda: torchvision.models.squeezenet1_1(num_classes=10), "classifier", 0),
        (lambda: torchvision.models.googlenet(num_classes=10, init_weights=False), "fc", 2),
        (lambda: timm.create_model("regnetx_002", num_classes=10), "head.fc", 0),
        (lambda: timm.create_model("levit_128s", num_classes=10), "head.linear", 1),
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224", num_classes=10), "head", 1),
        (hugging_face_distilled, "cls_classifier", 1),
    ],
)
def test_heads_of_known_models(build, path, others):
    with torch.device("meta"):
        model = build()
    found, _ = find_head(model, 10)
    assert found == path
    assert len(find_auxiliary_heads(model, found, 10)) == others
