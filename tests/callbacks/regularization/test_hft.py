"""HFT: what stays, under momentum; another draw in every task; and what is left of fine-tuning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_cl.callbacks import HFT, ContinualCallback

from ..by_hand import Net, assert_fine_tuning, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


class Four(Net):
    """Four layers beside the head, under AdamW with weight decay."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)
        layers = [nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 9)]
        self.body = nn.Sequential(*layers)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.1)


class Watch(ContinualCallback):
    """The weights at every task's start and end, and the masks."""

    def __init__(self) -> None:
        self.states: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        self.masks: list[dict[str, Tensor]] = []

    def on_task_start(self, trainer: Any, pl_module: Any, task: Any) -> None:
        self.start = weights(pl_module)

    def on_task_end(self, trainer: Any, pl_module: Any, task: Any) -> None:
        self.states.append((self.start, weights(pl_module)))
        self.masks.append({n: mask.clone() for n, mask in pl_module.continual.parts["hft"].frozen.items()})


@pytest.fixture(scope="module")
def watch() -> Watch:
    torch.manual_seed(0)
    watch = Watch()
    run(HFT(), callbacks=[watch], net=Four())
    return watch


def test_half_of_the_layers_stays_bit_for_bit(watch: Watch) -> None:
    for (before, after), masks in zip(watch.states, watch.masks, strict=True):
        assert sum(bool(mask.all()) for name, mask in masks.items() if name.endswith("weight")) == 2
        for name, mask in masks.items():
            assert torch.equal(after[name][mask], before[name][mask])
            assert bool(mask.all()) or not torch.equal(after[name], before[name])
        assert "fc.weight" not in masks
        assert not torch.equal(after["fc.weight"], before["fc.weight"])


def test_every_task_draws_again(watch: Watch) -> None:
    chosen = {tuple(bool(mask.all()) for mask in masks.values()) for masks in watch.masks}
    assert len(chosen) > 1


class Tokens(Four):
    """What is embedded is added before the layers."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)
        self.tokens = nn.Embedding(3, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x.flatten(1) + self.tokens(torch.arange(len(x)) % 3)))


def test_embeddings_are_trained_where_all_else_stays() -> None:
    watch = Watch()
    run(HFT(1.0), callbacks=[watch], net=Tokens())
    for before, after in watch.states:
        stays = {name: torch.equal(after[name], before[name]) for name in after if not name.startswith("fc.")}
        assert stays.pop("tokens.weight") is False
        assert all(stays.values())


def test_without_a_share_it_is_fine_tuning() -> None:
    assert_fine_tuning(HFT(0.0))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`share` is 1.5; give a number in \[0, 1\]"):
        HFT(1.5)
