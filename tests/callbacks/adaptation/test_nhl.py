"""NHL-style adaptation: what moves and what does not, putting back, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import attached, train
from torch import nn

from lightning_cl.callbacks import NHL

pytestmark = pytest.mark.filterwarnings("ignore")
CONVOLUTION = "net.patch_embed.proj"


def weights(run: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in run.module.named_parameters() if not n.startswith("continual.")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return weights(train(PLAIN, NHL(), tmp_path_factory.mktemp("source"), max_epochs=1))


def test_the_convolution_and_the_modulator_alone_adapt(source: Any, tmp_path: Any) -> None:
    """And the convolution's channels keep their lengths."""
    run = train(PLAIN, NHL(least=2), tmp_path)
    moved = {name for name, w in weights(run).items() if not torch.equal(w, source[name])}
    assert moved == {f"{CONVOLUTION}.weight"}
    lengths = [w[f"{CONVOLUTION}.weight"].flatten(1).norm(dim=1) for w in (weights(run), source)]
    torch.testing.assert_close(*lengths)
    bank = run.module.continual.parts["nhl"].modulator.bank(CONVOLUTION)
    assert not bool((bank.gamma == 1).any())
    run.module.continual.parts["nhl"].reset(run.module)
    assert torch.equal(run.module.get_submodule(CONVOLUTION).weight, source[f"{CONVOLUTION}.weight"])
    assert bool((bank.gamma == 1).all())
    assert bool((bank.beta == 0).all())


def test_small_batches_are_only_answered(source: Any, tmp_path: Any) -> None:
    """So the model is the source to the last bit; every answer is counted."""
    run = train(PLAIN, NHL(least=100), tmp_path)
    assert all(torch.equal(w, source[name]) for name, w in weights(run).items())
    bank = run.module.continual.parts["nhl"].modulator.bank(CONVOLUTION)
    assert bool((bank.gamma == 1).all())
    assert run.method.answered[1:, 1].tolist() == [2 * 27, 27]
    assert torch.equal(run.evaluation.correct["class_il"][0], run.evaluation.correct["class_il"][2])


def test_without_a_rate_the_convolution_stays(source: Any, tmp_path: Any) -> None:
    run = train(PLAIN, NHL(rate=0.0, least=2), tmp_path)
    assert all(torch.equal(w, source[name]) for name, w in weights(run).items())


def test_a_modulator_of_ones_and_zeros_changes_no_bit() -> None:
    images = torch.rand(3, 1, 16, 16)
    module = attached(PLAIN, NHL())
    plain = PLAIN.build("adamw", 0.0).eval()
    plain.load_state_dict({n: w for n, w in module.state_dict().items() if n in plain.state_dict()})
    assert torch.equal(module.eval()(images), plain(images))


def test_a_layer_that_is_no_convolution() -> None:
    with pytest.raises(
        ValueError, match=r"found `net\.head` in this .*name one with `layer` \(net\.patch_embed\.proj\)"
    ):
        attached(PLAIN, NHL(layer="net.head"))
    for arguments in ({"rate": -1.0}, {"temperature": 0.0}, {"least": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
            NHL(**arguments)
    assert isinstance(attached(PLAIN, NHL(layer=CONVOLUTION)).get_submodule(CONVOLUTION), nn.Conv2d)
