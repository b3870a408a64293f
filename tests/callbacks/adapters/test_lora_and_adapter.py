"""LoRA and adapters alone: the plain network at first, what learns, and their formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.modules import PLAIN, SPLIT, CLIPSplitModule
from conformance.runs import attached
from conformance.streams import make_stream
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_cl.callbacks import SLCA, Adapter, LoRA

pytestmark = pytest.mark.filterwarnings("ignore")
METHODS = [LoRA(rank=2, alpha=6.0), LoRA(rank=2, at=r"attn\.qkv"), Adapter(rank=4)]
names = pytest.mark.parametrize("method", METHODS, ids=["lora", "lora-at", "adapter"])


def plain(case: Any) -> Any:
    seed_everything(0, verbose=False)
    return case.build("adamw", 0.0)


@names
@pytest.mark.parametrize("case", [PLAIN, SPLIT], ids=lambda c: c.name)
def test_at_first_it_is_the_plain_network_bit_for_bit(method: Any, case: Any) -> None:
    module, images = attached(case, method), torch.rand(5, 1, 16, 16)
    head = {f"{case.head}.weight", f"{case.head}.bias"}
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert head < trained
    assert all(name.startswith("continual.parts.") for name in trained - head)
    assert torch.equal(module.eval()(images), plain(case).eval()(images))


def shaken(module: Any) -> dict[str, Tensor]:
    with torch.no_grad():
        banks = {n: p for n, p in module.named_parameters() if ".banks." in n}
        for parameter in banks.values():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return {n.partition(".banks.")[2]: p.detach()[0] for n, p in banks.items()}


def test_lora_is_the_network_with_other_weights() -> None:
    """``W + alpha / rank * B A`` in every linear layer of the blocks."""
    module, other = attached(PLAIN, LoRA(rank=2, alpha=6.0)), plain(PLAIN)
    parts = shaken(module)
    assert len(parts) == 2 * 4 * 3
    with torch.no_grad():
        for name, layer in other.named_modules():
            if isinstance(layer, nn.Linear) and ".blocks." in name:
                key = name.replace(".", "/")
                layer.weight += 3.0 * parts[f"{key}.up"].T @ parts[f"{key}.down"]
    images = torch.rand(5, 1, 16, 16)
    assert_close(module.eval()(images), other.eval()(images), rtol=0, atol=1e-4)


def test_adapters_read_what_the_mlp_reads() -> None:
    module, other = attached(PLAIN, Adapter(rank=4, scale=0.5)), plain(PLAIN).eval()
    parts, images = shaken(module), torch.rand(5, 1, 16, 16)

    def beside(name: str) -> Any:
        p = {k: parts[f"{name}.{k}"] for k in ("down", "down_bias", "up", "up_bias")}

        def hook(mlp: Any, given: Any, out: Tensor) -> Tensor:
            hidden = (given[0] @ p["down"].T + p["down_bias"]).relu()
            return out + 0.5 * (hidden @ p["up"] + p["up_bias"])

        return hook

    for index, block in enumerate(other.net.blocks):
        block.mlp.register_forward_hook(beside(f"net/blocks/{index}/mlp"))
    assert_close(module.eval()(images), other(images), rtol=0, atol=1e-4)


def test_the_image_tower_of_clip() -> None:
    module = CLIPSplitModule()
    LoRA(rank=2).attach_once(module, make_stream().info)
    (module(torch.rand(2, 1, 16, 16)).square().sum()).backward()
    without = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert not without  # DDP would wait for it


def test_behind_lora_only_low_rank_parts_are_slow() -> None:
    module = attached(PLAIN, LoRA(rank=2))
    SLCA(backbone_lr=0.5).attach_once(module, make_stream().info)
    part, optimizer = module.continual.parts["slca"], torch.optim.SGD(module.parameters(), lr=1.0)
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    for p in module.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    part.edit_gradients(module, optimizer)
    optimizer.step()
    part.after_step(module, optimizer)
    steps = {n: (before[n] - p).detach() for n, p in module.named_parameters()}
    assert all(
        torch.allclose(s, torch.full_like(s, 1.0 if ".head." in n else 0.5 if ".banks." in n else 0.0), atol=1e-6)
        for n, s in steps.items()
    )


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (LoRA(at=r"attn\.qv"), "no layer's name matches .*linear layers are net.blocks.0.attn.qkv"),
        (LoRA(at=r"blocks\.0\.norm1"), "names a LayerNorm; LoRA goes to `nn.Linear` alone"),
        (Adapter(at=r"mlp\.fc1"), "names a Linear with 32 channels in and 64 out"),
        (Adapter(at=r"blocks\.0\.norm1"), "names a LayerNorm with no linear layer"),
    ],
)
def test_a_place_that_does_not_suit(method: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        attached(PLAIN, method)


def test_a_network_without_blocks() -> None:
    class Flat(PLAIN.build("adamw", 0.0).__class__):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential()
            self.net.add_module("flatten", nn.Flatten())
            self.net.add_module("hidden", nn.Linear(256, 8))
            self.net.add_module("head", nn.Linear(8, 6))

    with pytest.raises(ValueError, match=r"no place for lora.*net.hidden, net.head: name the layers with `at`"):
        LoRA().attach_once(Flat(), make_stream().info)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LoRA(rank=0), "`rank` is 0; give at least 1"),
        (lambda: LoRA(alpha=0.0), "`alpha` is 0.0; give a number above 0"),
        (lambda: LoRA(at="("), "`at` is '\\(', which is no regular expression"),
        (lambda: Adapter(dropout=2.0), r"`dropout` is 2.0; give a number in \[0, 1\]"),
    ],
)
def test_bad_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
