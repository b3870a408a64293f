from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from tiny import images, tiny_vit
from torch.testing import assert_close

from lightning_cl import extend
from lightning_cl.nn import L2PPool
from lightning_cl.nn.prompted_vit import PromptedViT, install_prompts

PREFIX = {"form": "prefix", "layers": (0, 3), "prompt_length": 4, "pull_reduction": "sum"}
forms = pytest.mark.parametrize("options", [{}, PREFIX], ids=["tokens", "prefix"])


def pool_of(**options):
    torch.manual_seed(0)
    given = {"num_tasks": 3, "width": 48, "pool_size": 6, "prompt_length": 3, "top_k": 2, "init_range": (-1, 1)}
    return L2PPool(**{**given, **options}).double()


def queries(count=5, seed=1):
    return torch.randn(count, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def nearest(pool, query, layer=0):
    """Ids of the nearest keys of each query, one similarity at a time."""
    ids = []
    for q in query:
        cosines = [F.cosine_similarity(q, key, dim=0).item() for key in pool.keys[:, layer]]
        ids.append(sorted(range(len(cosines)), key=lambda m: -cosines[m])[: pool.top_k])
    return ids


def rows(prompts):
    """Everything that is given to the ViT, as one vector per sample."""
    if prompts.tokens is not None:
        return prompts.tokens.flatten(1)
    return torch.cat([t.flatten(1) for prefix in prompts.prefixes.values() for t in prefix], dim=1)


def test_each_image_gets_the_tokens_of_its_nearest_keys():
    pool, query = pool_of(), queries()
    prompts = pool(query)
    assert prompts.tokens.shape == (5, 6, 48)
    assert prompts.pool_tokens
    assert not prompts.prefixes
    for tokens, ids in zip(prompts.tokens, nearest(pool, query), strict=True):
        assert torch.equal(tokens, torch.cat([pool.prompts[m, 0] for m in ids]))


def test_prefixes_have_keys_of_their_own_in_each_layer_and_halves_of_the_prompts():
    pool, query = pool_of(**PREFIX), queries()
    prompts = pool(query)
    assert list(prompts.prefixes) == [0, 3]
    assert prompts.tokens is None
    assert not prompts.pool_tokens
    chosen = [nearest(pool, query, layer) for layer in (0, 1)]
    assert chosen[0] != chosen[1]
    for index, prefix in enumerate(prompts.prefixes.values()):
        assert prefix.key.shape == prefix.value.shape == (5, 4, 48)
        for b, ids in enumerate(chosen[index]):
            assert torch.equal(prefix.key[b], torch.cat([pool.prompts[m, index, :2] for m in ids]))
            assert torch.equal(prefix.value[b], torch.cat([pool.prompts[m, index, 2:] for m in ids]))


@forms
def test_with_a_pool_of_top_k_the_keys_play_no_part(options):
    pool, query = pool_of(pool_size=2, **options), queries()
    before = rows(pool(query)).sort(dim=1).values
    pool.keys.data.normal_()
    assert torch.equal(rows(pool(query)).sort(dim=1).values, before)


@forms
def test_samples_do_not_see_each_other(options):
    pool, query = pool_of(**options), queries(9)
    order = torch.randperm(9)
    alone = torch.cat([rows(pool(q[None])) for q in query])
    assert torch.equal(rows(pool(query)), alone)
    assert torch.equal(rows(pool(query[order])), alone[order])


@forms
def test_keys_learn_from_the_pull_term_alone_and_only_the_selected_ones(options):
    pool, query = pool_of(**options), queries(2)
    prompts = pool(query)
    rows(prompts).square().sum().backward()
    assert pool.keys.grad is None
    assert pool.prompts.grad.abs().sum() > 0
    prompts.loss.backward()
    for layer in range(pool.keys.shape[1]):
        selected = sorted({m for ids in nearest(pool, query, layer) for m in ids})
        assert 0 < len(selected) < 6
        assert pool.keys.grad[:, layer].abs().amax(dim=1).nonzero().flatten().tolist() == selected


def test_a_step_on_the_pull_term_brings_selected_keys_nearer():
    pool, query = pool_of(top_k=1), queries(1)
    before = pool(query).loss
    before.backward()
    pool.keys.data -= 0.1 * pool.keys.grad
    assert -1 < pool(query).loss < before


def test_the_pull_term_is_minus_the_mean_over_the_batch_of_the_sum_of_cosines():
    pool, query = pool_of(pull_weight=0.5), queries()
    cosines = [
        F.cosine_similarity(query[b], pool.keys[m, 0], dim=0) for b, ids in enumerate(nearest(pool, query)) for m in ids
    ]
    assert_close(pool(query).loss, -0.5 * sum(cosines) / 5, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 4])
def test_keys_equal_to_the_query_are_pulled_by_k(batch):
    pool, query = pool_of(), queries(1)
    pool.keys.data[:] = query
    assert pool(query.expand(batch, -1)).loss.item() == pytest.approx(-2)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_pull_term_of_prefixes_sums_distances_over_layers(reduction):
    pool, query = pool_of(**{**PREFIX, "pull_reduction": reduction}), queries()
    expected = 0.0
    for layer in (0, 1):
        for b, ids in enumerate(nearest(pool, query, layer)):
            expected += sum(1 - F.cosine_similarity(query[b], pool.keys[m, layer], dim=0).item() for m in ids)
    assert pool(query).loss.item() == pytest.approx(expected / (5 if reduction == "mean" else 1))


def test_no_pull_term_without_a_weight_or_in_evaluation():
    assert pool_of().eval()(queries()).loss is None
    pool = pool_of(pull_weight=0.0)
    assert pool(queries()).loss is None
    assert not pool.keys.requires_grad  # it would never get a gradient, and DDP would wait for it


def planted_pool(**options):
    """Queries along the axes 0, 0, 1, whose nearest keys are (0, 3), (0, 3) and (1, 2)."""
    pool = pool_of(**options)
    pool.keys.data.zero_()
    for m, axis in ((0, 0), (3, 0), (1, 1), (2, 1)):
        pool.keys.data[m, :, axis] = 1
        pool.keys.data[m, :, 2 + m] = 0.1 + 0.05 * m
    return pool, torch.eye(48, dtype=torch.float64)[[0, 0, 1]]


@forms
@pytest.mark.parametrize(
    ("batch_vote", "in_training", "in_evaluation"),
    [("never", False, False), ("train", True, False), ("always", True, True)],
)
def test_a_vote_gives_all_samples_the_batchs_favourites(options, batch_vote, in_training, in_evaluation):
    pool, query = planted_pool(batch_vote=batch_vote, **options)
    assert pool.batch_dependent == in_evaluation
    for training, voted in ((True, in_training), (False, in_evaluation)):
        given = rows(pool.train(training)(query))
        alone = torch.cat([rows(pool.train(training)(q[None])) for q in query])
        assert torch.equal(given.expand(3, -1)[:2], alone[:2])
        assert torch.equal(given.expand(3, -1)[2], alone[0 if voted else 2])


def test_the_pull_term_is_of_the_voted_keys():
    pool, query = planted_pool(batch_vote="train")
    pool(query).loss.backward()
    assert pool.keys.grad.abs().flatten(1).amax(dim=1).nonzero().flatten().tolist() == [0, 3]


@forms
def test_under_the_task_mask_the_task_decides_in_training_and_keys_in_evaluation(options):
    pool, query = pool_of(task_mask=True, **options), queries()
    free = pool_of(**options)
    for task in range(3):
        pool.start_task(task)
        similarity = torch.randn(5, 6)
        assert pool.select(similarity).tolist() == [2 * task, 2 * task + 1]
        assert rows(pool(query)).shape[0] == 1  # shared by all
        assert torch.equal(rows(pool.eval()(query)), rows(free.eval()(query)))
        pool.train()


def test_the_tasks_slots_start_from_the_previous_tasks_prompts_but_not_keys():
    pool = pool_of(task_mask=True, copy_previous=True)
    pool.start_task(0)
    before = copy.deepcopy(pool.state_dict())
    pool.start_task(1)
    assert torch.equal(pool.prompts[2:4], before["prompts"][:2])
    assert torch.equal(pool.keys, before["keys"])
    pool.prompts.data[2:4] += 1  # no aliasing
    assert torch.equal(pool.prompts[:2], before["prompts"][:2])
    assert torch.equal(pool.prompts[4:], before["prompts"][4:])


def test_only_the_task_mask_protects_anything():
    free, masked = pool_of(), pool_of(task_mask=True)
    for pool in (free, masked):
        assert list(pool.protected_rows()) == []
        pool.start_task(1)
    assert list(free.protected_rows()) == []
    protected = {id(p): r.tolist() for p, r in masked.protected_rows()}
    assert protected == {id(masked.prompts): [0, 1, 4, 5], id(masked.keys): [0, 1, 4, 5]}


def test_blocks_see_the_tokens_and_the_head_their_mean():
    vit, pool = tiny_vit(), pool_of().eval()
    full = copy.deepcopy(vit)
    extend(vit, PromptedViT)
    install_prompts(vit, pool)
    seen, read = [], []
    for block in vit.blocks:  # attention normalises what enters a block
        block.norm1.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    vit.blocks[-1].mlp.register_forward_hook(lambda _, args, __: seen.append(("mlp", args[0].shape[1])))
    vit.head.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    logits = vit(images(3))
    assert seen[:7] == [17] * 6 + [("mlp", 1)]  # the query: class token and 16 patches
    assert seen[7:] == [23] * 6 + [("mlp", 6)]  # 2 prompts of 3 tokens more, and only their rows at the end

    x = full._pos_embed(full.patch_embed(images(3)))
    tokens = pool(full.forward_head(full.forward_features(images(3)), pre_logits=True)).tokens
    outputs = full.norm(full.blocks(torch.cat([x, tokens], dim=1)))  # the order plays no part
    assert_close(read[0], outputs[:, 17:].mean(dim=1), rtol=0, atol=1e-10)
    assert_close(logits, full.head(outputs[:, 17:].mean(dim=1)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("copied", ["state", "deepcopy", "pickle"])
def test_a_copy_gives_the_same_prompts(copied):
    pool, query = pool_of(task_mask=True), queries()
    pool.start_task(2)
    if copied == "state":
        other = L2PPool(3, 48, 6, 3, 2, task_mask=True).double()
        other.load_state_dict(pool.state_dict())
    else:
        other = copy.deepcopy(pool) if copied == "deepcopy" else pickle.loads(pickle.dumps(pool))
    assert other.task == 2
    for training in (True, False):
        assert torch.equal(rows(other.train(training)(query)), rows(pool.train(training)(query)))


def test_the_initial_values_are_in_their_range():
    pool = L2PPool(3, 48)
    for parameter in pool.parameters():
        assert 0 <= parameter.min() < 0.001
        assert 0.009 < parameter.max() < 0.01


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_k": 7}, "`top_k` is 7 but the pool has 6 prompts; use at most 6"),
        ({"top_k": 0}, "`top_k` is 0"),
        ({"prompt_length": 0}, "`prompt_length` is 0; give at least 1"),
        ({"prompt_length": 5, "form": "prefix"}, "`prompt_length` is 5; .* for prefixes an even number"),
        ({"num_tasks": 4, "task_mask": True}, r"4 tasks x 2 prompts = 8, but the pool has 6; raise `pool_size`"),
        ({"copy_previous": True}, "set `task_mask=True`"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        pool_of(**options)


def test_a_task_beyond_the_pool():
    pool = pool_of(task_mask=True)
    with pytest.raises(
        ValueError, match="task 3 needs prompts 6 to 7, but the pool has 6; set `pool_size` to at least 8"
    ):
        pool.start_task(3)


def test_its_size_can_be_read():
    assert "6 prompts of 3 x 48, top_k=2, form='tokens'" in repr(pool_of())
