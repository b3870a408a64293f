from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from tiny import images, tiny_vit

from lightning_cl import extend
from lightning_cl.nn import DualPromptPool
from lightning_cl.nn.prompted_vit import PromptedViT, install_prompts


def pool_at(task, **options):
    """A pool in the middle of ``task``."""
    torch.manual_seed(0)
    given = {"num_tasks": 4, "width": 48, "general_length": 2, "expert_length": 3, "init_range": (-1, 1)}
    pool = DualPromptPool(**{**given, **options}).double()
    for index in range(task + 1):
        pool.start_task(index)
        with torch.no_grad():
            pool.experts[index] += torch.randn_like(pool.experts[index])
    return pool


def queries(count=5, seed=1):
    return torch.randn(count, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rows(prompts):
    """Everything that is given to the ViT, as one vector per sample."""
    size = max(len(prefix.key) for prefix in prompts.prefixes.values())
    parts = [t.expand(size, -1, -1).flatten(1) for prefix in prompts.prefixes.values() for t in prefix]
    return torch.cat(parts, dim=1)


def test_layers_get_their_kind_of_prefix():
    prompts = pool_at(1)(queries())
    assert {layer: tuple(prefix.key.shape) for layer, prefix in prompts.prefixes.items()} == {
        **dict.fromkeys((0, 1), (1, 2, 48)),
        **dict.fromkeys((2, 3, 4), (1, 3, 48)),
    }
    prompts = pool_at(1).eval()(queries())
    assert {layer: tuple(prefix.value.shape) for layer, prefix in prompts.prefixes.items()} == {
        **dict.fromkeys((0, 1), (1, 2, 48)),
        **dict.fromkeys((2, 3, 4), (5, 3, 48)),
    }


def test_blocks_without_a_prefix_get_no_rows():
    vit, pool = tiny_vit(), pool_at(1).eval()
    extend(vit, PromptedViT)
    install_prompts(vit, pool)
    lengths = []
    original = F.scaled_dot_product_attention

    def watched(q, k, v, **options):
        lengths.append(k.shape[2])
        return original(q, k, v, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", watched)
        vit(images(2))
    assert lengths == [17] * 6 + [19, 19, 20, 20, 20, 17]  # the query, then the prompted pass


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("shared_keys", [True, False])
def test_every_sample_gets_the_rows_of_its_own_expert_as_keys_and_values(batch, shared_keys):  # not of its batch mates
    pool = pool_at(3, shared_keys=shared_keys).eval()
    with torch.no_grad():
        pool.keys.copy_(torch.eye(48, dtype=torch.float64)[:4, None].expand_as(pool.keys))
        for kind in (0, 1):
            for expert in range(4):
                pool.experts[expert, :, kind] = 1000 * kind + expert
    ids = torch.tensor([2, 0, 3, 3, 1])[:batch]
    prompts = pool(torch.eye(48, dtype=torch.float64)[ids])
    for layer in (2, 3, 4):
        key, value = prompts.prefixes[layer]
        assert torch.equal(key, ids.double()[:, None, None].expand(-1, 3, 48))
        assert torch.equal(value, 1000 + ids.double()[:, None, None].expand(-1, 3, 48))


@pytest.mark.parametrize("training", [True, False])
def test_general_rows_are_keys_first_and_values_second(training):
    prompts = (pool := pool_at(1)).train(training)(queries())
    for index, layer in enumerate((0, 1)):
        assert torch.equal(prompts.prefixes[layer].key[0], pool.general[index, 0])
        assert torch.equal(prompts.prefixes[layer].value[0], pool.general[index, 1])


@pytest.mark.parametrize("shared_keys", [True, False])
def test_in_training_the_task_decides_and_only_its_own_parameters_learn(shared_keys):
    pool, query = pool_at(2, shared_keys=shared_keys), queries()
    prompts = pool(query)
    for index, layer in enumerate((2, 3, 4)):
        assert torch.equal(prompts.prefixes[layer].key[0], pool.experts[2, index, 0])
        assert torch.equal(prompts.prefixes[layer].value[0], pool.experts[2, index, 1])
    (rows(prompts).square().sum() + prompts.loss).backward()
    for parameter in (pool.experts, pool.keys):
        moved = parameter.grad.flatten(2).abs().amax(dim=2) > 0
        assert moved.all(dim=1).tolist() == moved.any(dim=1).tolist() == [False, False, True, False]
    assert (pool.general.grad != 0).all()


@pytest.mark.parametrize(("shared_keys", "sets"), [(True, 1), (False, 3)])
def test_the_pull_term_is_the_mean_distance_to_the_tasks_key(shared_keys, sets):
    pool, query = pool_at(2, shared_keys=shared_keys, pull_weight=0.5), queries()
    assert pool.keys.shape == (4, sets, 48)
    cosines = [F.cosine_similarity(q, key, dim=0).item() for q in query for key in pool.keys[2]]
    assert pool(query).loss.item() == pytest.approx(0.5 * (1 - sum(cosines) / len(cosines)))
    for factor, expected in ((3.0, 0.0), (-1.0, 1.0)):  # parallel and opposite, weight 0.5
        pool.keys.data[2] = factor * query[0]
        assert pool(query[:1]).loss.item() == pytest.approx(expected, abs=1e-12)
    assert pool.eval()(query).loss is None


def test_keys_learn_from_the_pull_term_alone():
    pool = pool_at(1)
    rows(pool(queries())).sum().backward()
    assert pool.keys.grad is None
    pool = pool_at(1, pull_weight=0.0)
    assert pool(queries()).loss is None
    assert not pool.keys.requires_grad  # it would never get a gradient, and DDP would wait for it


def test_a_query_equal_to_a_key_finds_its_expert_whatever_its_batch_mates():
    pool = pool_at(3).eval()
    for expert in range(4):
        query = torch.cat([queries(3), pool.keys[expert].detach(), queries(2, seed=2)])
        assert pool.nearest(query)[0, 3].item() == expert
        alone = torch.cat([rows(pool(q[None])) for q in query])
        assert torch.equal(rows(pool(query)), alone)


def test_layers_with_keys_of_their_own_choose_apart():
    pool = pool_at(3, shared_keys=False).eval()
    pool.keys.data.zero_()
    for layer, expert in enumerate((3, 0, 2)):
        pool.keys.data[expert, layer, 0] = 1
    prompts = pool(torch.eye(48, dtype=torch.float64)[:1])
    for index, (layer, expert) in enumerate({2: 3, 3: 0, 4: 2}.items()):
        assert torch.equal(prompts.prefixes[layer].key[0], pool.experts[expert, index, 0])


def test_experts_of_tasks_to_come_are_not_chosen():
    pool, query = pool_at(1).eval(), queries(20)
    pool.keys.data[2:] = query[0]  # nearer than any
    assert set(pool.nearest(query)[0].tolist()) == {0, 1}


def test_a_vote_gives_all_samples_the_batchs_favourite():
    pool = pool_at(3, batch_vote="always").eval()
    assert pool.batch_dependent
    keys = pool.keys[:, 0].detach()
    assert pool.nearest(keys[[2, 1, 2]]).tolist() == [[2, 2, 2]]
    assert pool.nearest(keys[[3, 1]]).tolist() == [[1, 1]]  # ties go to the lower id
    for batch_vote in ("never", "train"):
        pool = pool_at(3, batch_vote=batch_vote).eval()
        assert not pool.batch_dependent
        assert pool.nearest(pool.keys[[2, 1, 2], 0].detach()).tolist() == [[2, 1, 2]]


@pytest.mark.parametrize("copied", [True, False])
def test_a_task_starts_from_the_previous_expert(copied):
    pool = pool_at(1, copy_previous=copied)
    before = copy.deepcopy(pool.state_dict())
    pool.start_task(2)
    assert torch.equal(pool.experts[2], before["experts"][1 if copied else 2])
    pool.experts.data[2] += 1  # no aliasing
    assert torch.equal(pool.experts[[0, 1, 3]], before["experts"][[0, 1, 3]])
    assert torch.equal(pool.keys, before["keys"])
    assert torch.equal(pool.general, before["general"])


def test_experts_and_keys_of_other_tasks_are_protected_and_the_general_prefix_is_not():
    pool = pool_at(1)
    assert {id(p): r.tolist() for p, r in pool.protected_rows()} == {
        id(pool.experts): [0, 2, 3],
        id(pool.keys): [0, 2, 3],
    }
    assert list(pool_at(-1).protected_rows()) == []


@pytest.mark.parametrize("options", [{"general_layers": ()}, {"expert_layers": ()}], ids=["experts", "general"])
def test_either_kind_can_be_left_out(options):
    pool = pool_at(1, **options)
    prompts = pool(queries())
    (rows(prompts).sum() + (prompts.loss if prompts.loss is not None else 0)).backward()
    for name, parameter in pool.named_parameters():  # DDP waits for every parameter that wants a gradient
        assert parameter.requires_grad == (parameter.grad is not None), name
    assert len(pool.eval()(queries()).prefixes) == len(pool.layers)


def test_before_the_first_task_there_is_only_the_general_prefix():
    prompts = pool_at(-1)(queries())
    assert list(prompts.prefixes) == [0, 1]
    assert prompts.loss is None


@pytest.mark.parametrize("duplicate", ["state", "deepcopy", "pickle"])
def test_a_copy_gives_the_same_prefixes(duplicate):
    pool, query = pool_at(2), queries()
    if duplicate == "state":
        other = pool_at(-1)
        other.load_state_dict(pool.state_dict())
    else:
        other = copy.deepcopy(pool) if duplicate == "deepcopy" else pickle.loads(pickle.dumps(pool))
    assert other.task == 2
    for training in (True, False):
        assert torch.equal(rows(other.train(training)(query)), rows(pool.train(training)(query)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expert_layers": (1, 2)}, r"layers \[1\] are both general and expert"),
        ({"expert_length": 0}, "`expert_length` is 0; both are .* at least 1"),
        ({"general_length": 0}, "`general_length` is 0"),
        ({"pool_size": 3}, "4 tasks but the pool only 3 experts; set `pool_size` to at least 4"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        pool_at(-1, **options)


def test_a_task_too_many():
    with pytest.raises(ValueError, match=r"built for 4 tasks, but task 4 starts; .*`pool_size` to at least 5"):
        pool_at(3).start_task(4)


def test_its_size_can_be_read():
    assert "4 experts of 3 rows in layers [2, 3, 4], general prefix of 2 rows in layers [0, 1]" in repr(pool_at(-1))
