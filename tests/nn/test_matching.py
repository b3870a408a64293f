from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conformance.runs import in_forked_processes
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_cl.nn.matching import cosine_similarity, pull_similarity, vote


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def test_similarities_are_cosines_for_any_number_of_key_sets():
    query, keys = draw(5, 8), draw(3, 4, 8)
    expected = F.cosine_similarity(query[None, :, None], keys[:, None], dim=-1)
    found = cosine_similarity(query, keys)
    assert found.shape == (3, 5, 4)
    assert_close(found, expected, rtol=0, atol=1e-12)
    assert_close(cosine_similarity(7 * query, 0.1 * keys), expected, rtol=0, atol=1e-12)
    assert_close(cosine_similarity(query, -keys), -expected, rtol=0, atol=1e-12)


def test_the_norm_has_a_floor_of_a_millionth():  # max(|.|^2, 1e-12), as in the official code
    one = torch.ones(1, 1, dtype=torch.float64)
    assert cosine_similarity(1e-7 * one, one).item() == pytest.approx(0.1)
    assert cosine_similarity(0 * one, one).item() == 0


def test_autocast_does_not_choose_other_keys():
    query, keys = draw(64, 96).float(), draw(40, 96).float()
    expected = cosine_similarity(query, keys)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cosine_similarity(query, keys), expected)


def test_the_most_frequent_ids_win():
    ids = torch.tensor([[0, 1], [0, 2], [0, 2], [3, 2]])
    assert sorted(vote(ids, 10, 2).tolist()) == [0, 2]


@given(st.lists(st.integers(0, 6), min_size=4, max_size=40), st.integers(1, 4))
def test_the_vote_is_a_sort_by_count_then_id(flat, k):
    ranked = sorted(range(7), key=lambda i: (-flat.count(i), i))
    assert vote(torch.tensor(flat)[:, None], 7, k).tolist() == ranked[:k]


def test_processes_vote_together(tmp_path):
    parts = torch.tensor([[0, 1], [0, 1], [0, 2]]), torch.tensor([[3, 2], [3, 2], [3, 2]])

    def rank():
        torch.distributed.init_process_group("gloo")
        mine = torch.distributed.get_rank()
        torch.save(vote(parts[mine], 5, 2), tmp_path / f"{mine}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    winners = [torch.load(tmp_path / f"{mine}.pt").tolist() for mine in (0, 1)]
    assert winners == [[2, 0]] * 2 == [vote(torch.cat(parts), 5, 2).tolist()] * 2


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_pull_of_keys_equal_to_the_query_is_k_for_any_batch(batch):
    keys = draw(1, 8).expand(6, 8)
    similarity = cosine_similarity(draw(1, 8).expand(batch, 8), keys)
    ids = torch.tensor([[4, 0, 2]]).expand(batch, 3)
    assert_close(pull_similarity(similarity, ids).item(), 3.0)
    assert_close(pull_similarity(similarity, ids[0]).item(), 3.0)  # shared by all samples


def test_the_pull_pairs_each_query_with_its_own_keys():  # and not with those of its batch mates
    similarity, ids = draw(3, 5), torch.tensor([[0, 4], [1, 2], [3, 0]])
    expected = sum(similarity[b, m] for b in range(3) for m in ids[b].tolist()) / 3
    assert_close(pull_similarity(similarity, ids), expected, rtol=0, atol=1e-12)


def test_the_pull_reaches_the_selected_keys_only():
    query, keys = draw(3, 8), draw(6, 8).requires_grad_()
    pull_similarity(cosine_similarity(query, keys), torch.tensor([[0, 4], [0, 2], [4, 2]])).backward()
    assert keys.grad.abs().amax(dim=1).nonzero().flatten().tolist() == [0, 2, 4]
