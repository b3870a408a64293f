"""MulKI: terms and prototypes typed out, teachers that are the student, and the end of a task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.callbacks import MulKI
from lightning_cl.nn.relations import log_divergence, sample_relations, teacher_weights, text_relations

from .test_clip_prompt_methods import part, terms_of
from .test_cpe_clip import NAMES, Own, batch, info, start

pytestmark = pytest.mark.filterwarnings("ignore")
HEAT = 2 / 100


def attached(**options: Any) -> Any:
    """In the second of three tasks, of which the classes are 6 and 7."""
    module = Own()
    MulKI(**options).attach_once(module, info())
    module.log_dict = lambda *_: None
    module._trainer = SimpleNamespace(world_size=1)
    type(module).trainer = property(lambda self: self._trainer)
    start(module, 1)
    return module.train()


def texts_of(clip: Any) -> Tensor:
    tokens = open_clip.SimpleTokenizer(context_length=16)([f"a photo of a {NAMES[c]}." for c in (6, 7)])
    return F.normalize(clip.encode_text(tokens), dim=1)


def disturb(module: Any) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.clip.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))


def test_while_the_student_is_its_teachers_they_teach_nothing() -> None:
    module = attached()
    images, labels = batch([6, 7, 6])
    _, found = terms_of(module, images, labels)
    assert found["mulki_relations"].item() == pytest.approx(0, abs=1e-12)
    disturb(module)
    _, found = terms_of(module, images, labels)
    assert found["mulki_relations"].item() > 1e-3


def test_the_terms_are_those_of_the_formula() -> None:
    module = attached(prototype_weight=0.5, distillation_weight=0.25, temperature=0.3, prototype_decay=0.6)
    teacher, (images, labels) = module.clip, batch([6, 7, 6])
    with torch.no_grad():
        old_texts, old_images = texts_of(teacher), F.normalize(teacher.encode_image(images), dim=1)
    disturb(module)
    terms_of(module, *batch([6, 6, 7], seed=1))  # the prototypes begin with it
    begun = F.normalize(module.clip.encode_image(batch([6, 6, 7], seed=1)[0]), dim=1).detach()
    loss, found = terms_of(module, images, labels)
    now, texts = F.normalize(module.clip.encode_image(images), dim=1), texts_of(module.clip)
    first = torch.stack([begun[:2].mean(0), begun[2]])
    second = torch.stack([now[[0, 2]].mean(0), now[1]]).detach()
    prototypes = F.normalize(0.6 * first + 0.4 * second, dim=1)
    own = F.cross_entropy(100 * now @ prototypes.T, labels - 6)
    of_texts = F.cross_entropy(100 * prototypes @ texts.T, torch.arange(2))
    assert_close(found["mulki_prototypes"], 0.5 * (own + of_texts), rtol=1e-6, atol=1e-6)
    of_samples = log_divergence(
        sample_relations(now, prototypes, texts, HEAT), sample_relations(old_images, prototypes, old_texts, HEAT)
    ).sum(0)
    of_classes = log_divergence(
        text_relations(texts, prototypes, HEAT), text_relations(old_texts, prototypes, HEAT)
    ).mean()
    assert_close(found["mulki_relations"], 0.25 * (of_samples.mean() + of_classes), rtol=1e-6, atol=1e-6)
    answer = F.cross_entropy(100 * now @ texts.T, labels - 6)
    assert_close(loss, answer + found["mulki_prototypes"] + found["mulki_relations"], rtol=1e-8, atol=1e-8)
    loss.backward()
    assert all(p.grad is not None for n, p in module.clip.named_parameters() if n != "logit_scale")


def test_each_teacher_is_weighted_for_every_sample() -> None:
    """The original model is another one than that before the task."""
    module = attached(prototype_weight=0.0, temperature=0.2)
    own, (images, labels) = part(module), batch([6, 7, 6])
    sides = []
    for _ in range(2):
        with torch.no_grad():
            sides.append((texts_of(module.clip), F.normalize(module.clip.encode_image(images), dim=1)))
        disturb(module)
        if len(sides) == 1:
            start(module, 2)
            start(module, 1)
    _, found = terms_of(module, images, labels)
    now, texts = F.normalize(module.clip.encode_image(images), dim=1), texts_of(module.clip)
    prototypes = F.normalize(own.prototypes[6:8].to(now), dim=1)
    each = []
    for old_texts, old_images in sides:
        taught = sample_relations(old_images, prototypes, old_texts, HEAT)
        rows = log_divergence(sample_relations(now, prototypes, texts, HEAT), taught).sum(0)
        blocks = log_divergence(text_relations(texts, prototypes, HEAT), text_relations(old_texts, prototypes, HEAT))
        each.append(rows + blocks.mean())
    weights = teacher_weights([100 * pictures @ words.T for words, pictures in sides], 0.2)
    assert_close(found["mulki_relations"], (weights * torch.stack(each)).sum(0).mean(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("task", "share"), [(0, 1.0), (1, 0.5), (2, 1 / 3)])
def test_a_task_ends_between_the_last_weights_and_the_average(task: int, share: float) -> None:
    module = attached(decay=0.9)
    own, name = part(module), "clip.visual.conv1.weight"
    before = module.get_parameter(name).detach().clone()
    average = before.clone()
    for _ in range(3):
        disturb(module)
        own.after_step(module, None)
        average = 0.9 * average + 0.1 * module.get_parameter(name).detach()
    own.end_task(module, SimpleNamespace(task=SimpleNamespace(index=task)))
    assert_close(module.get_parameter(name).detach(), before + share * (average - before))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`temperature` is 0; give a number above 0"):
        MulKI(temperature=0)
    with pytest.raises(ValueError, match=r"`decay` is 2; give a number in \[0, 1\]"):
        MulKI(decay=2)
