"""Importances against loops over the samples and classes, typed from the formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import fisher, fisher_diagonal, per_sample_sum


def network(*extra: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), *extra, nn.Linear(4, 3)).double()


def weights_of(module):
    return {name: p for name, p in module.named_parameters()}


def logits_of(module):
    return lambda weights, inputs: torch.func.functional_call(module, dict(weights), (inputs,))


def loop(module, inputs, weigh):
    """``sum_b sum_c weigh(b, c, p) (d log p_c(x_b))^2`` by plain autograd."""
    total = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    for b in range(len(inputs)):
        log_p = module(inputs[b : b + 1]).log_softmax(1)[0]
        for c in range(len(log_p)):
            gradients = torch.autograd.grad(log_p[c], list(module.parameters()), retain_graph=True)
            for value, gradient in zip(total.values(), gradients, strict=True):
                value += weigh(b, c, log_p.exp().detach()) * gradient.square()
    return total


INPUTS, TARGETS = (
    torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
    torch.tensor([0, 2, 1, 1, 0]),
)


def test_the_expectation_and_the_labels():
    module = network()
    true = fisher_diagonal(logits_of(module), weights_of(module), INPUTS, kind="true")
    assert_close(true, loop(module, INPUTS, lambda b, c, p: p[c]))
    empirical = fisher_diagonal(logits_of(module), weights_of(module), INPUTS, TARGETS)
    assert_close(empirical, loop(module, INPUTS, lambda b, c, p: float(c == TARGETS[b])))
    assert all(p.grad is None for p in module.parameters())


def test_draws_from_the_model_are_those_of_the_generator_and_right_on_average():
    module, inputs = network(), INPUTS[:1].repeat(4000, 1)
    drawn = [
        fisher_diagonal(
            logits_of(module), weights_of(module), inputs, kind="sampled", generator=torch.Generator().manual_seed(s)
        )
        for s in (0, 0)
    ]
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    true = fisher_diagonal(logits_of(module), weights_of(module), INPUTS[:1], kind="true")
    for name, value in drawn[0].items():
        assert_close(value / 4000, true[name], rtol=0.1, atol=0.01)


def test_gradients_of_opposite_sign_cancel_in_a_batch_only():
    weights = {"w": torch.zeros(1, 2, dtype=torch.float64)}
    inputs, targets = torch.tensor([[2.0], [2.0]], dtype=torch.float64), torch.tensor([0, 1])

    def logits(known, some):
        return some @ known["w"]

    assert_close(fisher_diagonal(logits, weights, inputs, targets)["w"], torch.full((1, 2), 2.0).double())
    assert (fisher_diagonal(logits, weights, inputs, targets, "batch")["w"] == 0).all()
    same = fisher_diagonal(logits, weights, inputs, torch.zeros(2, dtype=torch.long), "batch")
    assert_close(same["w"], torch.full((1, 2), 2.0).double())  # as the samples'


def test_a_masked_class_takes_no_part():
    module = network()
    shut = torch.tensor([False, False, True])

    def masked(weights, inputs):
        return logits_of(module)(weights, inputs).masked_fill(shut, -torch.inf)

    found = fisher_diagonal(masked, weights_of(module), INPUTS, kind="true")
    assert all(value.isfinite().all() for value in found.values())
    assert (found["2.bias"][2] == 0).all()
    assert (found["2.bias"][:2] > 0).all()


class LooksAtValues(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


@pytest.mark.parametrize("at_once", [2**27, 70, 1])
@pytest.mark.parametrize("extra", [(), (LooksAtValues(),), (nn.BatchNorm1d(4),)], ids=["plain", "python", "norm"])
def test_one_after_the_other_where_it_must_be(extra, at_once, monkeypatch):
    monkeypatch.setattr(fisher, "_AT_ONCE", at_once)  # all at once, two at once, each alone
    module = network(*extra).eval()
    found = fisher_diagonal(logits_of(module), weights_of(module), INPUTS, TARGETS)
    assert_close(found, loop(module, INPUTS, lambda b, c, p: float(c == TARGETS[b])))


def test_sums_of_absolute_gradients_of_any_loss_on_any_inputs():
    weights = {"w": torch.tensor([1.0, 1.0]), "unused": torch.ones(2)}  # f = (1, 2) . x with the worked numbers
    inputs = {"x": torch.tensor([[1.0, 1.0], [1.0, -1.0]]), "y": [torch.ones(2)]}

    def loss(known, some, _):
        return (known["w"] * torch.tensor([1.0, 2.0]) * some["x"] * some["y"][0][:, None]).sum()

    found = per_sample_sum(loss, weights, inputs, torch.zeros(2), torch.abs)
    assert_close(found, {"w": torch.tensor([2.0, 4.0]), "unused": torch.zeros(2)})


def test_an_error_of_the_loss_is_told_as_it_is():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        per_sample_sum(lambda w, x, y: F.linear(x, w["w"]).sum(), {"w": torch.ones(2, 7)}, INPUTS.float(), TARGETS)


def test_bad_kinds():
    with pytest.raises(ValueError, match="`kind` is 'exact'; give"):
        fisher_diagonal(logits_of(network()), {}, INPUTS, TARGETS, "exact")
    with pytest.raises(ValueError, match="the batch Fisher needs the labels; give `targets`"):
        fisher_diagonal(logits_of(network()), {}, INPUTS, kind="batch")
