"""Intruder dimensions in a module: what is looked at, the repair of weights and of a LoRA, and counting alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import attached

from lightning_cl.callbacks import IntruderDimensions, LoRA
from lightning_cl.nn.intruder_dimensions import find_intruders, shrunk

from ..by_hand import assert_fine_tuning, weights

pytestmark = pytest.mark.filterwarnings("ignore")
FC1, QKV = "net.blocks.0.mlp.fc1.weight", "net.blocks.1.attn.qkv.weight"


def part_of(module: Any) -> Any:
    return module.continual.parts["intruderdimensions"]


def disturb(weight: Any, size: float = 20.0) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        weight.add_(size * torch.outer(torch.randn(len(weight)), torch.randn(weight.shape[1])) / len(weight))


def test_new_directions_are_counted_and_shrunk() -> None:
    module = attached(PLAIN, IntruderDimensions(factor=0.5))
    part = part_of(module)
    assert "net.head.weight" not in part.reference.names
    assert FC1 in part.reference.names
    part.start_task(module, None)
    before = weights(module)
    for name in (FC1, QKV):
        disturb(module.get_parameter(name))
    after = weights(module)
    part.end_task(module, None)
    assert {name for name, count in part.found.items() if count} == {FC1, QKV}
    whole = shrunk(after[FC1], find_intruders(before[FC1], after[FC1]), 0.5)
    assert torch.equal(module.get_parameter(FC1), whole)
    thirds = [
        shrunk(b, find_intruders(a, b), 0.5) for a, b in zip(before[QKV].chunk(3), after[QKV].chunk(3), strict=True)
    ]
    assert torch.equal(module.get_parameter(QKV), torch.cat(thirds))
    others = {name for name, value in weights(module).items() if not torch.equal(value, after[name])}
    assert others == {FC1, QKV}


def test_a_lora_is_repaired_at_its_rank() -> None:
    module = attached(PLAIN, LoRA(rank=2, alpha=4.0))
    IntruderDimensions(factor=0.5).attach_once(module, module.continual.info)
    part, bank = part_of(module), None
    bank = part.banks(module)[FC1]
    part.start_task(module, None)
    with torch.no_grad():
        torch.manual_seed(0)
        bank.up[0].copy_(3 * torch.randn(bank.up[0].shape))
        bank.down[0].copy_(torch.randn(bank.down[0].shape))
    weight = module.get_parameter(FC1)
    now = (weight + bank.delta(0)).detach()
    wanted = shrunk(now, find_intruders(weight.detach(), now), 0.5)
    frozen = weight.detach().clone()
    part.end_task(module, None)
    assert part.found[FC1] > 0
    assert torch.equal(weight, frozen)
    missed = (wanted - weight - bank.delta(0)).norm() / (wanted - weight).norm()
    assert part.missed[FC1] == pytest.approx(missed.item(), abs=1e-4)
    assert missed < 0.9
    assert (weight + bank.delta(0) - wanted).norm() < (now - wanted).norm()  # nearer than before the repair


def test_counting_alone_changes_no_bit() -> None:
    method = IntruderDimensions(threshold=1.0, factor=1.0)
    assert_fine_tuning(method)
    facts = method.report_facts()
    assert sorted(facts["intruders"]) == ["0", "1", "2"]
    assert facts["intruders"]["0"] == sum(facts["by_weight"]["0"]["intruders"].values()) > 0


def test_the_reference_is_the_first_weights_or_those_of_the_last_task() -> None:
    """After two tasks of which each brings the same new direction, it is new to the first weights alone."""
    counts = []
    for reference in ("pretrained", "previous"):
        module = attached(PLAIN, IntruderDimensions(factor=1.0, reference=reference))  # type: ignore[arg-type]
        part = part_of(module)
        for _ in range(2):
            part.start_task(module, None)
            disturb(module.get_parameter(FC1))
            part.end_task(module, None)
        counts.append(part.found[FC1])
    assert counts == [1, 0]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`threshold` is 2; give a number in \[0, 1\]"):
        IntruderDimensions(threshold=2)
    with pytest.raises(ValueError, match="has none besides its head whose name contains 'nothing'"):
        attached(PLAIN, IntruderDimensions(at="nothing"))
