"""MoRA: the plain network at first, the formula in a whole network, and what older experts keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.modules import PLAIN, SPLIT
from conformance.runs import attached
from lightning.pytorch import seed_everything
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.callbacks import MoRA

pytestmark = pytest.mark.filterwarnings("ignore")
METHOD = MoRA


def banks(module: Any) -> dict[str, Tensor]:
    return {n: p for n, p in module.named_parameters() if ".banks." in n}


@pytest.mark.parametrize("case", [PLAIN, SPLIT], ids=lambda c: c.name)
def test_at_first_it_is_the_plain_network_bit_for_bit(case: Any) -> None:
    module, images = attached(case, MoRA(rank=2)), torch.rand(5, 1, 16, 16)
    seed_everything(0, verbose=False)
    assert torch.equal(module.eval()(images), case.build("adamw", 0.0).eval()(images))
    layers = 3 * (3 + 3)  # in each of 3 blocks three parts of qkv, proj, fc1 and fc2
    assert sum(name.endswith(".up") for name in banks(module)) == layers


def mixture(x: Tensor, down: Tensor, up: Tensor, topk: int, temperature: float, threshold: float) -> Tensor:
    """One token's sum over its chosen experts, from the formula."""
    z = down @ x
    u = z / z.norm()
    chosen = sorted(range(len(u)), key=lambda i: -float(u[i]))[:topk]
    weights = torch.softmax(torch.stack([u[i] for i in chosen]) / temperature, dim=0)
    kept = [(i, w) for i, w in zip(chosen, weights, strict=True) if float(u[i]) >= threshold]
    return sum((w * z[i] * up[i] for i, w in kept), torch.zeros(up.shape[1]))


def test_queries_keys_and_values_have_experts_of_their_own() -> None:
    """The fused projection of an attention, token by token, with the experts of two tasks."""
    method = MoRA(rank=2, topk=3, temperature=0.5, threshold=0.1, at=r"blocks\.1\.attn\.qkv")
    module = attached(PLAIN, method)
    part, layer = module.continual.parts["mora"], module.net.blocks[1].attn.qkv
    with torch.no_grad():
        for parameter in banks(module).values():
            parameter.normal_()
    part.slot.set(1)
    part.choose_paths()
    x = torch.randn(1, 2, 32)
    with torch.no_grad():
        module.eval()
        given, plain = layer(x)[0], x[0] @ layer.weight.T + layer.bias
    for place, adapters in enumerate(part.groups):
        (bank,) = adapters
        down, up = bank.down.detach()[:2].flatten(0, 1), bank.up.detach()[:2].flatten(0, 1)
        for token in range(2):
            added = mixture(x[0, token], down, up, 3, 0.5, 0.1)
            columns = slice(32 * place, 32 * (place + 1))
            assert_close(given[token, columns] - plain[token, columns], added, rtol=0, atol=1e-4)


def test_older_experts_do_not_move_by_a_bit_and_the_new_begin_at_zero(watch: Any) -> None:
    def experts(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: v for n, v in state.items() if n.endswith((".up", ".down"))}

    for task in range(3):
        start, end = experts(watch.starts[task]), experts(watch.ends[task])
        others = [slot for slot in range(3) if slot != task]
        assert all(torch.equal(start[n][others], end[n][others]) for n in start)
        assert all(bool(v[task].eq(0).all()) for n, v in start.items() if n.endswith(".up"))
        assert any(not torch.equal(start[n][task], end[n][task]) for n in start if n.endswith(".up"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MoRA(rank=0), "`rank` is 0; give at least 1"),
        (lambda: MoRA(temperature=0.0), "`temperature` is 0.0; give a number above 0"),
        (lambda: MoRA(threshold=1.5), "`threshold` is 1.5; give at most 1"),
        (lambda: attached(PLAIN, MoRA(at="norm1")), "names a LayerNorm; MoRA goes to `nn.Linear` alone"),
        (lambda: attached(PLAIN, MoRA(at="nothing")), "no layer's name matches"),
    ],
)
def test_bad_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
