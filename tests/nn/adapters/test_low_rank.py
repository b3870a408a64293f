"""Low-rank updates with given input directions, and with magnitudes, against matrices typed out."""

from __future__ import annotations

import torch
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import LoRA, SubspaceMemory, inject
from lightning_cl.nn.adapters import FixedDownLoRA, ScaledLoRA


def shaken(bank):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*bank.parameters(), *bank.buffers()):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return bank.double()


def test_the_worked_numbers_at_a_boundary():
    """``B = (3, 4)``, ``A = (0, 2)``, ``a = 0.8``: the column (4.8, 6.4) stays, or becomes (0.48, 0.64) as released."""
    x = torch.tensor([[0.0, 1.0]])
    for reset, expected in ((None, [4.8, 6.4]), (0.8, [0.48, 0.64])):
        bank = ScaledLoRA(2, 2, 2, 1)
        with torch.no_grad():
            bank.down[0], bank.up[0] = torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 4.0]])
        assert_close(bank.adapted(x, torch.zeros(1, 2), [(0,)]), torch.tensor([[4.8, 6.4]]))
        bank.normalize(0, reset)
        assert_close(bank.adapted(x, torch.zeros(1, 2), [(0,)]), torch.tensor([expected]), rtol=0, atol=1e-6)
        assert_close(bank.down[0].norm() * bank.up[0].norm(), torch.tensor(1.0))
        bank.normalize(1)  # nothing learned there
        assert bool(bank.up[1].eq(0).all())
        assert bool(bank.magnitude.isfinite().all())


def test_directions_of_the_last_slot_learn_and_all_magnitudes():
    bank = shaken(ScaledLoRA(4, 6, 8, 2, start=3))
    bank.learning = (2,)
    x, y = torch.randn(5, 6).double(), torch.randn(5, 12).double()
    out = bank.adapted(x, y, [(0, 1, 2)])
    expected = y.clone()
    for slot in range(3):
        expected[:, 3:11] += bank.magnitude[slot] * (x @ bank.down[slot].T @ bank.up[slot])
    assert_close(out, expected)
    out.square().sum().backward()
    assert [bool(g.any()) for g in bank.down.grad] == [False, False, True, False]
    assert [bool(g.any()) for g in bank.up.grad] == [False, False, True, False]
    assert [bool(g) for g in bank.magnitude.grad] == [True, True, True, False]
    kept = {id(parameter): rows.tolist() for parameter, rows in bank.protected((2,))}
    assert kept == {id(bank.down): [0, 1, 3], id(bank.up): [0, 1, 3], id(bank.magnitude): [3]}


def test_given_input_directions_do_not_learn():
    bank = shaken(FixedDownLoRA(2, 6, 8, 2))
    assert [name for name, _ in bank.named_parameters()] == ["up"]
    x, y = torch.randn(5, 6).double(), torch.randn(5, 8).double()
    plain = LoRA(2, 6, 8, 2).double()
    plain.load_state_dict(bank.state_dict())
    assert_close(bank.adapted(x, y, [(0, 1)]), plain.adapted(x, y, [(0, 1)]))
    x, y = torch.randn(6, 6).double(), torch.randn(6, 8).double()
    assert_close(bank.adapted(x, y, [(0, 1), (1, 0)]), plain.adapted(x, y, [(0, 1), (1, 0)]))


def test_another_slot_of_zeros_changes_no_bit():
    layer = nn.Linear(48, 48)
    adapters = inject(nn.ModuleDict({"0": layer}), lambda _: FixedDownLoRA(4, 48, 48, 7), "0")
    (bank,) = adapters
    with torch.no_grad():
        bank.down.normal_()
        bank.up[:2] = torch.randn(2, 7, 48)
    x = torch.randn(64, 48)
    adapters.select((0, 1))
    before = layer(x)
    adapters.select((0, 1, 2))
    assert torch.equal(layer(x), before)


def test_new_directions_are_outside_the_basis_and_the_strongest_there():
    torch.manual_seed(0)
    memory = SubspaceMemory(12)
    memory.extend(torch.randn(50, 4) @ torch.randn(4, 12), 1.0, crossing=True)
    assert memory.size == 4
    inputs = (torch.randn(200, 12) * torch.linspace(3, 0.1, 12)).double()
    gram = inputs.T @ inputs
    found = memory.new_directions(gram, 3)
    basis = memory.basis
    assert_close(found.T @ found, torch.eye(3))
    assert float((found.T @ basis).abs().max()) < 1e-5
    outside = torch.eye(12, dtype=torch.float64) - basis.double() @ basis.double().T
    left = torch.linalg.svd(outside @ inputs.T)[0][:, :3]
    assert_close((left.T @ found.double()).abs(), torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-4)


def test_no_direction_is_made_of_nothing():
    memory = SubspaceMemory(6)
    rows = torch.randn(20, 6) * torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    memory.extend(rows, 1.0, crossing=True)
    assert bool(memory.new_directions((rows.T @ rows).double(), 3).eq(0).all())
