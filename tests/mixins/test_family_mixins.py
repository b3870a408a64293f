"""A model author inherits a family's mixin and gets what the callback gives, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.modules import PLAIN, PlainModule
from lightning.pytorch import seed_everything
from tiny import stream_info

from lightning_cl.callbacks import LanguageGuidedHead, PrototypeClassifier
from lightning_cl.class_embeddings import RandomTargets
from lightning_cl.mixins import ContinualMixin, LanguageMixin, PrototypeMixin
from lightning_cl.nn.language_head import LanguageHead
from lightning_cl.nn.prototypes import PrototypeBank

INFO = stream_info(3, 6)


class Prototypes(PrototypeMixin, PlainModule):
    def add(self) -> None:
        self.add_prototypes(PrototypeBank(6, 32))


class Names(LanguageMixin, PlainModule):
    def add(self) -> None:
        targets = RandomTargets()
        self.add_language_head(LanguageHead(6, 32, targets.dim), targets)


@pytest.mark.parametrize(
    ("author", "method"),
    [(Prototypes, PrototypeClassifier()), (Names, LanguageGuidedHead("random"))],
    ids=["prototypes", "language"],
)
def test_the_mixin_is_the_callback(author: Any, method: Any) -> None:
    seed_everything(0, verbose=False)
    module = author()
    module.configure_continual(INFO)
    module.add()
    seed_everything(0, verbose=False)
    plain: Any = PLAIN.build("adamw", 0.0)
    method.attach_once(plain, INFO)
    states = [part.state_dict() for part in (module, plain)]
    assert list(states[0]) == list(states[1])
    same = [
        torch.equal(states[0][name].nan_to_num(), value.nan_to_num())
        for name, value in states[1].items()
        if torch.is_tensor(value)
    ]
    assert len(same) > 20
    assert all(same)
    module.train()
    assert module.net.training is not isinstance(method, PrototypeClassifier)
    assert isinstance(module, ContinualMixin)
