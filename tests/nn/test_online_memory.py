"""Steps of a matrix memory: values by hand, gradients of the objectives by autograd, and a layer that can be cut."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.nn.online_memory import OnlineMemory, held, memory_step

EYE, KEY, VALUE = torch.eye(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


@pytest.mark.parametrize(
    ("kind", "bound", "expected"),
    [
        ("l2", 3.0, [[0.4, 0], [0.5, 0.9]]),
        ("lp", 3.0, [[-0.6, 0], [1.5, 0.9]]),
        ("huber", 0.5, [[0.65, 0], [0.25, 0.9]]),
        ("lq", 3.0, [[0.15, 0], [1.5, 0.9]]),  # the error of I / sqrt(2) is (0.7071, -1)
    ],
)
def test_steps_of_the_specification(kind: str, bound: float, expected: list[list[float]]) -> None:
    assert_close(memory_step(EYE, KEY, VALUE, 0.9, 0.5, kind, bound), torch.tensor(expected))
    assert torch.equal(memory_step(EYE, KEY, VALUE, 1.0, 0.0, kind, bound), EYE)


@pytest.mark.parametrize("kind", ["l2", "lp", "huber"])
def test_the_step_is_along_the_gradient_of_its_objective(kind: str) -> None:
    torch.manual_seed(0)
    memory, key, value = torch.randn(3, 4, requires_grad=True), torch.randn(4), torch.randn(3)
    error = memory @ key - value
    zero = torch.zeros_like(error)
    losses: dict[str, Tensor] = {
        "l2": error.square().sum() / 2,
        "lp": error.abs().pow(2.5).sum(),
        "huber": F.huber_loss(error, zero, reduction="sum", delta=0.7),
    }
    (gradient,) = torch.autograd.grad(losses[kind], memory)
    bound = {"l2": 0.0, "lp": 2.5, "huber": 0.7}[kind]
    assert_close(memory_step(memory, key, value, 0.8, 0.3, kind, bound), 0.8 * memory - 0.3 * gradient)


def test_what_a_memory_by_the_q_norm_holds() -> None:
    """``||(0.15, 1.5, 0.9)||_4 ^ 2`` is the root of 5.71910625; and of any matrix ``||W||_q = ||A||_q^(3 - q)``."""
    after = memory_step(EYE, KEY, VALUE, 0.9, 0.5, "lq")
    assert_close(held(after, "lq"), torch.tensor([[0.062723, 0], [0.627230, 0.376338]]), rtol=1e-5, atol=1e-6)
    torch.manual_seed(0)
    memory = torch.randn(2, 3, 4)
    for power in (2.0, 3.0, 5.5):
        norms = [torch.linalg.vector_norm(m, power, dim=(1, 2)) for m in (held(memory, "lq", power), memory)]
        assert_close(norms[0], norms[1] ** (3 - power))
    assert torch.equal(held(memory, "lq", 2.0), memory)
    assert not held(torch.zeros(2, 2), "lq").any()
    of_two, of_error = (memory_step(EYE, KEY, VALUE, 0.9, 0.5, kind, 2.5, 2.0) for kind in ("lq", "lp"))
    assert torch.equal(of_two, of_error)


def test_a_memory_by_the_q_norm_begins_as_an_identity_of_norm_one() -> None:
    """Near 0 it would answer with large values."""
    for power in (2.0, 4.0):
        first = OnlineMemory(3, 5, "lq", power=power).start(2, torch.zeros(1, dtype=torch.float64))
        assert first.shape == (2, 5, 5)
        assert_close(first, first[0, 0, 0] * torch.eye(5, dtype=torch.float64).expand(2, -1, -1))
        assert_close(torch.linalg.vector_norm(first[0], power), torch.tensor(1.0).double())


def test_no_error_gives_a_gradient_of_zero() -> None:
    memory = torch.zeros(2, 2, requires_grad=True)
    memory_step(memory, KEY, torch.zeros(2), 0.0, 0.5, "lp", 1.5).sum().backward()
    assert memory.grad is not None
    assert not memory.grad.any()


def test_retention_by_divergence_minimises_its_objective_on_the_simplex() -> None:
    """``argmin_W <W, g> + KL(W || softmax(alpha log W'))/eta`` row by row, against random distributions."""
    torch.manual_seed(0)
    before, key, value = torch.rand(3, 4).softmax(-1), torch.rand(4), torch.rand(3)
    found = memory_step(before, key, value, 0.7, 0.5, "kl")
    assert_close(found.sum(-1), torch.ones(3))
    gradient, prior = torch.outer(before @ key - value, key), (0.7 * before.log()).log_softmax(-1)

    def objective(memory: Tensor) -> Tensor:
        return (0.5 * memory * gradient + memory * (memory.log() - prior)).sum()

    others = torch.randn(500, 3, 4).softmax(-1)
    assert float(objective(found)) < min(float(objective(other)) for other in others)
    assert_close(memory_step(before, key, value, 1.0, 0.0, "kl"), before)


@pytest.mark.parametrize("kind", ["l2", "kl", "lq"])
def test_a_sequence_may_be_read_in_parts(kind: str) -> None:
    torch.manual_seed(0)
    layer, tokens = OnlineMemory(5, 3, kind), torch.randn(2, 7, 5)
    whole, end = layer(tokens)
    first, memory = layer(tokens[:, :4])
    second, last = layer(tokens[:, 4:], memory)
    assert_close(torch.cat([first, second], 1), whole)
    assert_close(last, end)
    whole.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())


def test_an_unknown_objective_is_refused() -> None:
    with pytest.raises(ValueError, match="give one of 'l2', 'lp'"):
        memory_step(EYE, KEY, VALUE, 1.0, 0.0, "l3")
    with pytest.raises(ValueError, match=r"`power` is 1\.5; give a norm of at least 2"):
        memory_step(EYE, KEY, VALUE, 1.0, 0.0, "lq", power=1.5)
