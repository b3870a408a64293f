from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_cl.nn import MVPPool


def pool_with(usage=(0, 0, 0, 0), **options):
    torch.manual_seed(0)
    given = {"num_outputs": 10, "width": 48, "pool_size": 4, "general_length": 2, "expert_length": 3}
    pool = MVPPool(**{**given, **options}).double()
    pool.usage.copy_(torch.tensor(usage))
    return pool


def queries(count=7, seed=1):
    return torch.randn(count, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def near_the_keys(pool, count=20):
    """Queries that resemble the keys in turn."""
    keys = pool.keys.detach().double()[torch.arange(count) % len(pool.keys)]
    return keys + 0.5 * torch.randn(keys.shape, dtype=keys.dtype, generator=torch.Generator().manual_seed(2))


def selected(pool, query):
    """The entries, read from the experts that came out."""
    tokens = pool(query).appended[pool.expert_layers[0]]
    return [next(p for p, expert in enumerate(pool.experts) if torch.equal(expert[0], row)) for row in tokens]


def test_layers_get_their_kind_of_tokens():
    for training in (True, False):
        prompts = pool_with().train(training)(queries())
        assert {layer: tuple(tokens.shape) for layer, tokens in prompts.appended.items()} == {
            **dict.fromkeys((0, 1), (1, 2, 48)),
            **dict.fromkeys((2, 3, 4), (7, 3, 48)),
        }
        assert prompts.prefixes == {}
        assert prompts.tokens is None


def test_the_start():
    torch.manual_seed(0)
    pool = MVPPool(100, 768)
    for parameter in (pool.general, pool.experts, pool.keys):  # drawn from N(0, 1)
        assert abs(parameter.mean()) < 0.05
        assert parameter.std().item() == pytest.approx(1, abs=0.05)
    assert bool((pool.mask == -1).all())
    assert pool.usage.tolist() == [0] * 10
    assert sum(p.numel() for p in pool.parameters()) == 554_060 - 76_900  # as published, without the head


# ---------------------------------------------------------------------- selection


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("usage", [(0, 0, 0, 0), (5, 0, 1, 2), (0, 9, 0, 300)])
def test_the_nearest_entry_is_taken_and_use_counts_as_distance(usage, training):
    pool = pool_with(usage).train(training)
    query, expected = near_the_keys(pool), []
    for q in query:
        weighed = [(1 - F.cosine_similarity(q, k, dim=0)) * (u + 1) for k, u in zip(pool.keys, usage, strict=True)]
        expected.append(min(range(4), key=lambda p, weighed=weighed: weighed[p]))
    assert selected(pool, query) == expected
    assert len(set(expected)) > 1


def test_without_the_contrastive_loss_use_does_not_count():
    query = near_the_keys(pool_with())
    nearest = selected(pool_with(), query)
    assert selected(pool_with((9, 0, 1, 300), use_contrastive=False), query) == nearest
    assert selected(pool_with((9, 0, 1, 300)), query) != nearest


def test_all_layers_and_the_mask_are_of_the_same_entry():
    pool = pool_with()
    pool.mask.data.copy_(torch.randn(4, 10, dtype=torch.float64))
    ids = selected(pool, queries())
    prompts = pool(queries())
    for index, layer in enumerate((2, 3, 4)):
        assert torch.equal(prompts.appended[layer], pool.experts[ids, index])
    assert_close(pool.logit_scale(7), 2 / (1 + torch.exp(-pool.mask[ids])))


def test_factors_are_0_537883_at_first_and_always_between_0_and_2():
    pool = pool_with()
    pool(queries())
    assert (pool.logit_scale(7) - 0.537883).abs().max() < 1e-6
    pool.mask.data[0], pool.mask.data[1:] = -30, 30
    pool(queries(50))
    scale = pool.logit_scale(50)
    assert 0 < scale.min() < 1e-10
    assert 2 - 1e-10 < scale.max() < 2


def test_factors_are_of_the_pass_before():
    pool = pool_with()
    with pytest.raises(ValueError, match="called with 7 samples but no pass of the ViT came before"):
        pool.logit_scale(7)
    pool(queries(5))
    with pytest.raises(ValueError, match=r"with 7 samples but the ViT's last pass was over 5; .*`use_mask=False`"):
        pool.logit_scale(7)
    pool(queries(7))
    pool.logit_scale(7)
    with pytest.raises(ValueError, match="no pass"):  # whose would it be?
        pool.logit_scale(7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_parameters_select_and_mask_in_32_bits(dtype):
    pool = pool_with((0, 1, 40_000, 70_000)).to(dtype)  # beyond float16
    pool.mask.data[:] = -12
    assert pool(queries().to(dtype)).loss.dtype == torch.float32
    scale = pool.logit_scale(7)
    assert scale.dtype == torch.float32
    assert scale.min() > 1e-6
    assert set(selected(pool, near_the_keys(pool).to(dtype))) == {0, 1}


# ---------------------------------------------------------------------- counters


def test_training_passes_of_a_step_are_counted():
    pool = pool_with()
    pool(queries(5))  # outside of a step
    pool.begin_step()
    pool(queries(5))
    pool(queries(6, seed=2))
    assert pool.usage.sum() == 0  # the step's own selections do not disturb it
    ids = selected(pool_with(), queries(5)) + selected(pool_with(), queries(6, seed=2))
    pool.end_step()
    assert pool.usage.tolist() == torch.bincount(torch.tensor(ids), minlength=4).tolist()
    before = pool.usage.clone()
    pool.end_step()
    pool.eval()
    pool.begin_step()
    pool(queries(9))
    pool.end_step()
    assert torch.equal(pool.usage, before)


def test_a_sample_that_only_fills_up_is_not_counted():
    pool = pool_with()
    pool.begin_step(counted=False)
    pool(queries(1))
    pool.end_step()
    assert pool.usage.sum() == 0


def test_counters_are_state():
    pool, other = pool_with((3, 1, 4, 1)), pool_with()
    other.load_state_dict(pool.state_dict())
    for twin in (other, copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert twin.usage.tolist() == [3, 1, 4, 1]
        assert selected(twin.eval(), queries(20)) == selected(pool.eval(), queries(20))
    pool.start_task(1)
    assert pool.usage.tolist() == [3, 1, 4, 1]  # boundaries play no part


# ---------------------------------------------------------------------- what learns from what


def test_only_selected_rows_get_a_gradient_and_keys_only_from_the_prompt_loss():
    pool = pool_with()
    ids = selected(pool, queries(3))
    assert 0 < len(set(ids)) < 4
    prompts = pool(queries(3))
    (sum(t.square().sum() for t in prompts.appended.values()) + pool.logit_scale(3).sum()).backward()
    for parameter in (pool.experts, pool.mask):
        moved = parameter.grad.flatten(1).abs().amax(dim=1) > 0
        assert moved.nonzero().flatten().tolist() == sorted(set(ids))
    assert pool.general.grad.abs().min() > 0
    assert pool.keys.grad is None
    others = [parameter.grad.clone() for parameter in (pool.general, pool.experts, pool.mask)]
    prompts.loss.backward()
    assert (pool.keys.grad != 0).all()
    for parameter, before in zip((pool.general, pool.experts, pool.mask), others, strict=True):
        assert torch.equal(parameter.grad, before)


@pytest.mark.parametrize("reduction", ["sample", "broadcast"])
def test_steps_on_the_keys_lower_the_loss(reduction):
    pool, losses = pool_with(cvpt_reduction=reduction), []
    optimizer = torch.optim.SGD([pool.keys], lr=5)
    for _ in range(20):
        loss = pool(queries()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05


def test_the_reductions_differ_once_entries_were_used():
    losses = [pool_with((0, 3, 1, 7), cvpt_reduction=r)(queries()).loss.item() for r in ("sample", "broadcast")]
    assert abs(losses[0] - losses[1]) > 1e-4
    assert pool_with((0, 3, 1, 7), cvpt_weight=0.5)(queries()).loss.item() == pytest.approx(losses[0] / 2)


def test_without_the_contrastive_loss_keys_are_pulled_to_their_queries():
    pool = pool_with(use_contrastive=False)
    ids = selected(pool, queries())
    expected = sum(1 - F.cosine_similarity(q, pool.keys[i], dim=0) for q, i in zip(queries(), ids, strict=True)) / 7
    assert_close(pool(queries()).loss, expected)


OFF = [
    {"general_length": 0},
    {"expert_length": 0},
    {"general_layers": ()},
    {"expert_layers": ()},
    {"use_mask": False},
    {"cvpt_weight": 0},
]


@pytest.mark.parametrize("options", OFF, ids=str)
def test_parts_can_be_left_out(options):
    pool = pool_with(**options)
    prompts = pool(queries())
    total = sum((t.sum() for t in prompts.appended.values()), torch.zeros((), dtype=torch.float64))
    total = total + (0 if prompts.loss is None else prompts.loss)
    (total + (pool.logit_scale(7).sum() if pool.use_mask else 0)).backward()
    for name, parameter in pool.named_parameters():  # DDP waits for every parameter that wants a gradient
        assert parameter.requires_grad == (parameter.grad is not None), name
    assert set(prompts.appended) == set(pool.layers)


def test_evaluation_has_no_loss():
    assert pool_with().eval()(queries()).loss is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expert_layers": (1, 2)}, r"layers \[1\] are both general and expert"),
        ({"expert_length": -1}, "`expert_length` is -1"),
        ({"pool_size": 0}, "`pool_size` is 0, .*a pool of at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        pool_with(**options)


def test_its_size_can_be_read():
    text = "4 experts of 3 tokens in layers [2, 3, 4], general prompt of 2 tokens in layers [0, 1], masks on 10 logits"
    assert text in repr(pool_with())
