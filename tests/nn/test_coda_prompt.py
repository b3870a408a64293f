from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_cl.nn import CODAPromptPool
from lightning_cl.nn.coda_prompt import component_weights


def pool_at(task, **options):
    """A pool whose rows have been trained a little in every task up to ``task``."""
    torch.manual_seed(0)
    pool = CODAPromptPool(
        **{"num_tasks": 4, "width": 48, "pool_size": 12, "prompt_length": 4, "layers": (0, 2), **options}
    )
    pool.double()
    for index in range(task + 1):
        pool.start_task(index)
        with torch.no_grad():
            for parameter in pool.parameters():
                parameter[pool.current] += 0.1 * torch.randn_like(parameter[pool.current])
    return pool


def queries(count=5):
    return torch.randn(count, 48, dtype=torch.float64)


def by_the_formula(pool, query, stop):
    """alpha = cos(q * A, K) and p = sum_m alpha_m P_m, one sample, component and layer at a time."""
    prompts = torch.zeros(len(pool.layers), len(query), *pool.components.shape[2:], dtype=query.dtype)
    for layer in range(len(pool.layers)):
        for b in range(len(query)):
            for m in range(stop):
                attended = query[b] * pool.attention[m, layer]
                alpha = F.cosine_similarity(attended, pool.keys[m, layer], dim=0)
                prompts[layer, b] += alpha * pool.components[m, layer]
    return prompts


def rows(prompts):
    return torch.stack([torch.cat(prefix, dim=1) for prefix in prompts.prefixes.values()])


@pytest.mark.parametrize("task", [0, 1, 3])
def test_prefixes_are_the_formula(task):
    pool, query = pool_at(task), queries()
    prompts = pool(query)
    assert list(prompts.prefixes) == [0, 2]
    assert prompts.prefixes[2].key.shape == prompts.prefixes[2].value.shape == (5, 2, 48)
    assert_close(rows(prompts), by_the_formula(pool, query, 3 * (task + 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("task", [0, 2])
def test_gradients_are_those_of_the_formula_with_old_rows_held_fixed(task):
    pool, query, weight = pool_at(task), queries(), torch.randn(2, 5, 4, 48, dtype=torch.float64)
    (rows(pool(query)) * weight).sum().backward()
    reference = copy.deepcopy(pool)
    reference.zero_grad()
    (by_the_formula(reference, query, pool.current.stop) * weight).sum().backward()
    for name, parameter in pool.named_parameters():
        expected = reference.get_parameter(name).grad
        assert_close(parameter.grad[pool.current], expected[pool.current], rtol=0, atol=1e-12)
        assert parameter.grad[pool.current].abs().min(dim=1).values.sum() > 0, "a layer without gradient"
        assert not parameter.grad[: pool.current.start].any()
        assert not parameter.grad[pool.current.stop :].any()


def weights(query, keys, attention):
    return component_weights(query, attention * F.normalize(keys, dim=-1), attention.square())


def test_component_weights_are_cosines():
    query, keys, attention = queries(7), queries(9), queries(9)
    expected = F.cosine_similarity(query[:, None] * attention, keys, dim=-1)
    found = weights(query, keys, attention)
    assert_close(found, expected, rtol=0, atol=1e-12)
    assert found.abs().max() <= 1
    for scaled in (
        weights(3 * query, keys, attention),
        weights(query, 5 * keys, attention),
        weights(query, keys, 7 * attention),
    ):
        assert_close(scaled, expected, rtol=0, atol=1e-12)
    flipped = torch.ones(9, 1, dtype=torch.float64)
    flipped[4] = -1
    assert_close(weights(query, flipped * keys, attention), expected * flipped.T, rtol=0, atol=1e-12)


def test_an_all_zero_query_gives_zero_weights():
    assert not weights(torch.zeros(1, 48).double(), queries(3), queries(3)).any()


def test_autocast_does_not_make_the_weights_coarse():
    pool, query = pool_at(1).float(), queries().float()
    expected = weights(query, pool.keys[:, 0], pool.attention[:, 0])
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(weights(query.bfloat16(), pool.keys[:, 0], pool.attention[:, 0]), expected, rtol=0, atol=2e-3)
        assert torch.equal(weights(query, pool.keys[:, 0], pool.attention[:, 0]), expected)
        assert rows(pool(query)).isfinite().all()


@pytest.mark.parametrize("factor", [2.0, -1.0])
def test_prefixes_are_linear_in_the_components(factor):
    pool, query = pool_at(2), queries()
    before = rows(pool(query))
    pool.components.data.mul_(factor)
    assert_close(rows(pool(query)), factor * before, rtol=0, atol=1e-12)


def test_rows_of_tasks_to_come_play_no_part():
    pool, query = pool_at(1), queries()
    before = rows(pool(query))
    for parameter in pool.parameters():
        parameter.data[pool.current.stop :] = torch.nan
    assert torch.equal(rows(pool(query)), before)


def test_samples_do_not_see_each_other():
    pool, query = pool_at(2), queries(9)
    alone = torch.cat([rows(pool(query[b : b + 1])) for b in range(9)], dim=1)
    assert_close(rows(pool(query)), alone, rtol=0, atol=1e-12)


def test_before_the_first_task_there_are_no_prompts():
    prompts = CODAPromptPool(4, 48)(queries())
    assert not prompts.prefixes
    assert prompts.loss is None


@pytest.mark.parametrize("task", [0, 1, 3])
def test_new_rows_are_orthonormal_to_all_rows_and_old_ones_stay(task):
    pool = pool_at(task - 1) if task else pool_at(-1)
    before = {name: p.detach().clone() for name, p in pool.named_parameters()}
    pool.start_task(task)
    for name, parameter in pool.named_parameters():
        assert torch.equal(parameter[: pool.current.start], before[name][: pool.current.start])
        assert not parameter[pool.current.stop :].any()
        for layer in range(2):
            flat = parameter[:, layer].detach().flatten(1)
            new, old = flat[pool.current], flat[pool.old]
            assert_close(new @ new.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-10)
            assert task == 0 or (new @ old.T).abs().max() < 1e-8


def test_layers_are_drawn_apart():
    pool = pool_at(0)
    assert (pool.keys[:3, 0] - pool.keys[:3, 1]).abs().min() > 0


def test_the_released_initialisation_can_be_chosen():
    pool = pool_at(0, init="gram_schmidt", width=768)
    pool.start_task(1)
    flat = pool.keys[:6, 0].detach()
    assert_close(flat[3:].norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert 1e-8 < (flat[3:] @ flat[:3].T).abs().max() < 5e-2


def test_drawing_reaches_parameters_of_any_memory_layout():  # which `module.to(memory_format=...)` changes
    pool = CODAPromptPool(4, 48, 12, 4, (0, 2)).to(memory_format=torch.channels_last)
    pool.start_task(0)
    assert_close(pool.components[:3].flatten(2).norm(dim=2), torch.ones(3, 2))


def test_outputs_change_only_when_the_next_task_counts():
    pool, query = pool_at(1), queries()
    before = rows(pool(query))
    pool.start_task(2)
    assert (rows(pool(query)) - before).abs().max() > 0
    pool.task = 1  # evaluate as after task 1
    assert torch.equal(rows(pool(query)), before)


@pytest.mark.parametrize("task", [0, 2])
def test_the_penalty_is_the_mean_square_of_gram_minus_identity_over_layers_and_matrices(task):
    pool = pool_at(task, ortho_weight=0.5)
    stop, expected = pool.current.stop, 0.0
    for parameter in pool.parameters():
        for layer in range(2):
            flat = parameter[:stop, layer].flatten(1)
            expected += ((flat @ flat.T - torch.eye(stop)) ** 2).mean().item()
    loss = pool(queries()).loss
    assert loss.item() == pytest.approx(0.5 * expected)
    loss.backward()
    assert pool.keys.grad[pool.current].abs().min() > 0
    assert not pool.keys.grad[pool.old].any()


def test_no_penalty_without_a_weight_or_in_evaluation():
    assert pool_at(1)(queries()).loss is None
    assert pool_at(1, ortho_weight=0.5).eval()(queries()).loss is None


def test_protected_rows_are_all_but_the_tasks_own():
    pool = pool_at(1)
    protected = list(pool.protected_rows())
    assert {id(p) for p, _ in protected} == {id(p) for p in pool.parameters()}
    assert {tuple(r.tolist()) for _, r in protected} == {(0, 1, 2, 6, 7, 8, 9, 10, 11)}
    assert list(CODAPromptPool(4, 48).protected_rows()) == []


@pytest.mark.parametrize("copied", ["state", "deepcopy", "pickle"])
def test_a_copy_gives_the_same_prefixes_without_drawing_anew(copied):
    pool, query = pool_at(2), queries()
    if copied == "state":
        other = CODAPromptPool(4, 48, 12, 4, (0, 2)).double()
        other.load_state_dict(pool.state_dict())
    else:
        other = copy.deepcopy(pool) if copied == "deepcopy" else pickle.loads(pickle.dumps(pool))
    assert other.task == 2
    assert torch.equal(rows(other(query)), rows(pool(query)))


def test_loading_follows_new_values_at_once():
    pool, query = pool_at(2), queries()
    pool(query)
    other = pool_at(2)
    other.keys.data.neg_()
    pool.load_state_dict(other.state_dict())
    assert torch.equal(rows(pool(query)), rows(other(query)))


def test_a_step_after_an_evaluation_and_in_another_dtype():
    pool, query = pool_at(2), queries()
    with torch.inference_mode():
        expected = rows(pool(query))
    rows(pool(query)).sum().backward()
    assert_close(rows(pool.float()(query.float())), expected.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("num_tasks", "per_task", "idle"), [(10, 10, 0), (15, 6, 10), (100, 1, 0)])
def test_components_per_task(num_tasks, per_task, idle):
    if idle:
        with pytest.warns(UserWarning, match=f"leaves {idle} components unused \\({per_task} per task\\)"):
            pool = CODAPromptPool(num_tasks, 4)
    else:
        pool = CODAPromptPool(num_tasks, 4)
    assert pool.per_task == per_task
    assert num_tasks * per_task + idle == len(pool.keys)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_tasks": 13}, "13 tasks but the pool only 12 components; set `pool_size` to at least 13"),
        ({"prompt_length": 3}, "`prompt_length` is 3"),
        ({"prompt_length": 0}, "`prompt_length` is 0"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        pool_at(-1, **options)


def test_a_task_too_many():
    with pytest.raises(ValueError, match="built for 4 tasks, but task 4 starts"):
        pool_at(3).start_task(4)


def test_its_size_can_be_read():
    assert "12 components of 4 x 48, 3 per task, layers=[0, 2]" in repr(pool_at(-1))
