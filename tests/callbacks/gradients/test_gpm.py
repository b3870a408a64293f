"""GPM: what it keeps, what a step may still change, and its first task against fine-tuning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_cl.callbacks import GPM, ContinualCallback, FineTuning
from lightning_cl.callbacks.gradients.gpm import ProjectedSteps

from ..by_hand import SIZE, Net, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


class Deep(Net):
    """A convolution and two layers; Adam, whose moments turn a projected gradient out of its plane."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)
        self.body = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(48, 8),
            nn.Tanh(),
            nn.Linear(8, 9),
            nn.Tanh(),
        )

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.1)


def basis(inputs: list[Tensor], shares: list[float]) -> list[np.ndarray]:
    """The rule of the official code with singular values: ``(D, r)`` after each task."""
    kept, found = np.zeros((inputs[0].shape[1], 0)), []
    for index, (rows, share) in enumerate(zip(inputs, shares, strict=True)):
        x = rows.numpy().T
        total = (x**2).sum()
        left, values, _ = np.linalg.svd(x - kept @ kept.T @ x, full_matrices=False)
        energy = values**2 / total
        if index == 0:
            count = int((np.cumsum(energy) < share).sum())
        else:
            held, count = 1 - (values**2).sum() / total, 0
            while held < share and count < len(energy):
                held, count = held + energy[count], count + 1
        kept = np.concatenate([kept, left[:, :count]], axis=1)
        found.append(kept)
    return found


class Watch(ContinualCallback):
    """A copy of the network, and its bases, at every task's end."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []
        self.bases: list[dict[str, Tensor]] = []

    def on_task_end(self, trainer: Any, pl_module: Any, task: Any) -> None:
        part = pl_module.continual.parts["gpm"]
        self.states.append(weights(pl_module))
        self.bases.append({name: part.memory(name).basis.clone() for name in part.layers})


@pytest.fixture(scope="module")
def deep() -> tuple[Any, Watch]:
    torch.manual_seed(0)
    watch = Watch()
    return run(GPM(0.9, 0.01), callbacks=[watch], net=Deep()), watch


def first_epoch(net: Any, task: int) -> Tensor:
    batches = net.tasks[task]
    return torch.cat([x for x, _ in batches[: len(batches) // 2]])


def calls(net: Any, state: dict[str, Tensor], images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """``(N, D)`` inputs and the outputs of the last two layers, at given weights."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    twin = Deep().double()
    twin.load_state_dict(state)
    for name in ("body.3", "body.5"):
        twin.get_submodule(name).register_forward_hook(lambda _, x, y, n=name: found.update({n: (x[0], y)}))
    with torch.no_grad():
        twin(images)
    return found


def test_directions_are_those_of_the_official_rule(deep: tuple[Any, Watch]) -> None:
    net, watch = deep
    for name in ("body.3", "body.5"):
        inputs = [calls(net, watch.states[t], first_epoch(net, t))[name][0] for t in range(3)]
        for found, expected in zip(watch.bases, basis(inputs, [0.9, 0.91, 0.92]), strict=True):
            ours = found[name].numpy()
            assert ours.shape == expected.shape
            np.testing.assert_allclose(ours @ ours.T, expected @ expected.T, atol=1e-6)
    assert 0 < watch.bases[0]["body.3"].shape[1] < watch.bases[2]["body.3"].shape[1]


def test_outputs_on_inputs_within_the_basis_stay(deep: tuple[Any, Watch]) -> None:
    """Of every layer, under AdamW with weight decay; the layers did learn in the later tasks."""
    _, watch = deep
    for name, kept in watch.bases[0].items():
        before, after = (state[f"{name}.weight"].flatten(1) for state in (watch.states[0], watch.states[2]))
        assert (before - after).abs().max() > 1e-3
        if kept.shape[1]:
            torch.testing.assert_close(after @ kept.to(after), before @ kept.to(after), rtol=0, atol=1e-5)


def test_what_has_no_inputs_stays_after_the_first_task(deep: tuple[Any, Watch]) -> None:
    _, watch = deep
    first, _, last = watch.states
    biases = [name for name in first if name.endswith("bias") and name.startswith("body")]
    assert len(biases) == 3
    assert all(torch.equal(first[name], last[name]) for name in biases)
    assert torch.equal(first["fc.weight"][:SIZE], last["fc.weight"][:SIZE])
    assert not torch.equal(first["fc.weight"][SIZE:], last["fc.weight"][SIZE:])


@pytest.mark.parametrize(("energies", "count"), [((0.9, 0.08, 0.02), 1), ((0.5, 0.3, 0.2), 2)])
def test_the_direction_that_reaches_the_share_is_left_out_at_first(energies: Any, count: int) -> None:
    """Energies 0.9, 0.08, 0.02 and a share of 0.97: one direction."""
    part = ProjectedSteps(run_once(), 0.97, 0.003)
    memory = part.memory("body.1")
    gram = torch.zeros(16, 16).double()
    gram[range(3), range(3)] = torch.tensor(energies).double()
    assert memory.extend_gram(gram, 0.97) == count


def run_once() -> Any:
    net = Net()
    net.continual_head = net.fc
    return net


def test_the_first_task_is_fine_tuning() -> None:
    ours, plain = run(GPM()), run(FineTuning(train_mask="task", reset_optimizer=True))
    assert all(torch.equal(ours.ends[0][name], value) for name, value in plain.ends[0].items())
    assert not torch.equal(ours.ends[1]["body.1.weight"], plain.ends[1]["body.1.weight"])


def test_a_network_without_such_layers_is_refused() -> None:
    class OnlyHead(Net):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Flatten()
            self.fc = nn.Linear(16, 6)

    with pytest.raises(ValueError, match=r"OnlyHead trains no `nn.Linear` or `nn.Conv2d` without groups besides"):
        run(GPM(), net=OnlyHead())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"energy": 1.2}, r"`energy` is 1.2; give a number in \[0, 1\]"),
        ({"growth": -0.1}, "`growth` is -0.1; give at least 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GPM(**arguments)
