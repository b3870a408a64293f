"""L2M and SLM: what is chosen for a sample, by whom, and what stays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import attached
from lightning.pytorch import seed_everything
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.callbacks import L2M, SLM
from lightning_cl.nn.matching import spread_scores
from lightning_cl.training.group_keys import fit_group_keys, group_similarity, retrieved

from ..by_hand import make_online, run

pytestmark = pytest.mark.filterwarnings("ignore")
METHODS = [L2M(pool_size=4, rank=2), SLM(per_task=2, topk=2, rank=2, groups=2)]
methods = pytest.mark.parametrize("method", METHODS, ids=["l2m", "slm"])


def plain() -> Any:
    seed_everything(0, verbose=False)
    return PLAIN.build("adamw", 0.0)


def shaken(module: Any) -> Any:
    part = module.continual.parts[next(iter(module.continual.parts))]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for bank in part.adapters:
            bank.up.copy_(0.3 * torch.randn(bank.up.shape, generator=generator))
    return part


@methods
def test_at_first_it_is_the_plain_network_bit_for_bit(method: Any) -> None:
    module, images = attached(PLAIN, method).eval(), torch.rand(5, 1, 16, 16)
    assert torch.equal(module(images), plain().eval()(images))


@methods
def test_an_answer_does_not_depend_on_the_rest_of_the_batch(method: Any) -> None:
    module = attached(PLAIN, method).eval()
    part = shaken(module)
    if isinstance(method, SLM):
        part.keys.copy_(torch.randn(part.keys.shape, generator=torch.Generator().manual_seed(0)))
        part.task.set(2)
    images = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = module(images)
    assert_close(torch.cat([module(images[i : i + 1]) for i in range(6)]), whole, rtol=0, atol=1e-5)
    assert not torch.equal(whole, plain().eval()(images))


@methods
def test_the_query_is_what_the_network_without_updates_gives_its_head(method: Any) -> None:
    module, images = attached(PLAIN, method), torch.rand(4, 1, 16, 16)
    part, other = shaken(module), plain().eval()
    found: list[Tensor] = []
    other.get_submodule(PLAIN.head).register_forward_pre_hook(lambda _, given: found.append(given[0]))
    other(images)
    assert_close(part.query_of(module.eval(), images), found[0], rtol=0, atol=1e-6)
    assert part.mixture.slots is None  # nothing is chosen between passes


def test_a_modulator_is_that_of_the_nearest_key() -> None:
    module = attached(PLAIN, L2M(pool_size=3, rank=2)).eval()
    part, images = shaken(module), torch.rand(2, 1, 16, 16)
    query = part.query_of(module, images)
    with torch.no_grad():
        part.keys.copy_(torch.stack([-query[0], query[1], query[0]]))
    chosen = []
    part.mixture.set = lambda slots, shares: chosen.append(slots)
    part.choose(query)
    assert chosen[0].tolist() == [[2], [1]]


def test_choices_are_spread_by_their_counts() -> None:
    """Scores by hand: equal cosines of 0.5, chosen once and three times."""
    scores = spread_scores(torch.tensor([[0.5, 0.5]]), torch.tensor([1, 3]))
    assert_close(scores, torch.tensor([[0.75 * 0.75, 0.75 * 0.25]]), rtol=0, atol=1e-5)
    part = attached(PLAIN, L2M(pool_size=2, rank=2)).continual.parts["l2m"]
    for index, spreads in ((0, 0), (1, 1)):
        part.start_task(None, SimpleNamespace(index=index, order="shuffled"))
        assert part.spreads.value == spreads


def test_similarity_of_groups_and_shares_by_hand() -> None:
    query = torch.tensor([[1.0, 0.0, 0.0, 2.0, 9.0]])  # the fifth channel fills no group
    keys = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 3.0]], [[-1.0, 0.0], [1.0, 0.0]]])
    similarity = group_similarity(query, keys)
    assert_close(similarity, torch.tensor([[1.0, 0.5, -0.5]]))
    ids, shares = retrieved(similarity, 2, 0.5)
    assert ids.tolist() == [[0, 1]]
    weights = torch.tensor([2.0, 1.0]).exp()
    assert_close(shares[0], weights / weights.sum())


def test_keys_come_to_the_queries_of_their_task() -> None:
    queries = torch.randn(12, 32, generator=torch.Generator().manual_seed(0)) * 0.1 + torch.linspace(-1, 1, 32)
    fitted = fit_group_keys(queries, (2, 2, 16), topk=2, seed=0, task=0, epochs=30, lr=0.05, batch_size=4)
    assert group_similarity(queries, fitted).mean() > 0.95


def test_only_the_current_tasks_updates_learn() -> None:
    part = attached(PLAIN, SLM(per_task=2, topk=2, rank=2, groups=2)).continual.parts["slm"]
    part.task.set(1)
    for parameter, rows in part.protected(None):
        assert sorted({*rows.tolist(), 2, 3}) == list(range(len(parameter)))
        assert not {2, 3} & set(rows.tolist())
    part.keys.copy_(torch.randn(part.keys.shape, generator=torch.Generator().manual_seed(0)))
    query = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    chosen: list[Tensor] = []
    part.mixture.set = lambda slots, shares: chosen.append(slots)
    part.train()
    part.choose(query)
    assert set(chosen[0].flatten().tolist()) == {2, 3}
    part.eval()
    part.choose(query)
    assert set(chosen[1].flatten().tolist()) <= set(range(4))


def test_a_stream_without_boundaries_is_refused() -> None:
    with pytest.raises(ValueError, match="SLM takes the next updates when a task ends"):
        run(SLM(at="body"), stream=make_online())


@pytest.mark.parametrize(("method", "name", "value"), [(L2M, "pool_size", 0), (SLM, "groups", 0), (SLM, "topk", 0)])
def test_bad_arguments(method: Any, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"`{name}` is {value}; give at least 1"):
        method(**{name: value})
