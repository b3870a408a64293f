"""A layer computes with other weights for a call, and nothing of it is left behind."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import Substitutes, substitute, weight_layers
from lightning_cl.nn.substitution import batch_norms


class Doubles(Substitutes):
    """Answers with twice the weight, and one more; once it fails."""

    def __init__(self):
        super().__init__()
        self.who = "Doubles"
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.broken = False

    def substitutes(self, name, layer):
        return {"weight": layer.weight * self.scale}

    def changed(self, name, layer, output):
        if self.broken:
            raise RuntimeError("broken")
        return output + 1


@pytest.fixture
def pair():
    torch.manual_seed(0)
    layer, source = nn.Linear(3, 2), Doubles()
    substitute(layer, source, "fc")
    return layer, source, torch.randn(4, 3)


def test_the_layer_computes_with_what_it_is_given(pair):
    layer, source, x = pair
    assert_close(layer(x), x @ (2 * layer.weight).T + layer.bias + 1)
    layer(x).sum().backward()
    assert_close(source.scale.grad, (x @ layer.weight.T).sum())
    assert_close(layer.weight.grad, 2 * x.sum(0).expand(2, 3))


def test_nothing_is_left_behind(pair):
    layer, source, x = pair
    names, before = list(layer.state_dict()), set(layer.__dict__)
    layer(x)
    source.broken = True
    with pytest.raises(RuntimeError, match="broken"):
        layer(x)
    assert set(layer.__dict__) == before
    assert list(layer.state_dict()) == names == ["weight", "bias"]
    assert layer.weight is dict(layer.named_parameters())["weight"]


def test_a_norm_stands_still(pair):
    class Still(Substitutes):
        def substitutes(self, name, layer):
            return {"training": False}

    norm, x = nn.BatchNorm1d(3), torch.randn(5, 3)
    substitute(norm, Still(), "norm")
    assert_close(norm(x), x / (1 + norm.eps) ** 0.5)
    assert norm.training
    assert int(norm.num_batches_tracked) == 0


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_copies_have_their_own_source(duplicate):
    net = nn.ModuleDict({"fc": nn.Linear(3, 2)})
    net["source"] = Doubles()
    substitute(net["fc"], net["source"], "fc")
    twin, x = duplicate(net), torch.randn(4, 3)
    with torch.no_grad():
        net["source"].scale.fill_(5)
    assert_close(twin["fc"](x), x @ (2 * net["fc"].weight).T + net["fc"].bias + 1)


def test_two_sources_are_refused(pair):
    layer, source, _ = pair
    substitute(layer, source, "fc")  # again
    with pytest.raises(ValueError, match=r"`fc` computes with the weights of Doubles already, so Doubles cannot"):
        substitute(layer, Doubles(), "fc")


def test_layers_with_weights():
    net = nn.Sequential(nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2), nn.MultiheadAttention(4, 2), nn.Linear(4, 4))
    net.append(nn.BatchNorm1d(4, track_running_stats=False)).append(nn.Linear(4, 2))
    net[3].weight.requires_grad_(False)
    assert list(weight_layers(net)) == ["0", "5"]
    assert list(weight_layers(net, net[5])) == ["0"]
    assert list(batch_norms(net)) == ["1"]


class Branches(Substitutes):
    """Branch b multiplies the weight by b."""

    def substitutes(self, name, layer):
        return {"weight": layer.weight * (1 if self.branch is None else self.branch)}


def test_branches_answer_for_their_part_of_the_rows(pair):
    layer, source, x = nn.Linear(3, 2), Branches(), torch.randn(4, 3)
    substitute(layer, source, "fc")
    plain = layer(x)
    with source.answering((2, 5)):
        each = layer(x.repeat(2, 1))
        with pytest.raises(ValueError, match="`fc` was given 3 rows, which are no equal parts for 2 tasks"):
            layer(x[:3])
    assert torch.equal(each, torch.cat([nn.functional.linear(x, b * layer.weight, layer.bias) for b in (2, 5)]))
    with source.answering((3,)):
        assert torch.equal(layer(x), nn.functional.linear(x, 3 * layer.weight, layer.bias))
    assert torch.equal(layer(x), plain)
    assert (source.branches, source.branch) == ((), None)
