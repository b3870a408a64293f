"""Sequences with known answers: bits against brute force, and the error that a change of law must make."""

from __future__ import annotations

import itertools

import pytest
import torch

from lightning_cl.datamodules import BinarySequences, ContinualDataModule, DomainIncremental, DriftStream
from lightning_cl.datamodules.sources.sequences import answers_of_heads, delayed_match, parity


def test_answers_are_those_of_brute_force_for_all_strings_of_eight_bits() -> None:
    strings = list(itertools.product((0, 1), repeat=8))
    bits = torch.tensor(strings)
    for order in range(2, 9):
        assert parity(bits, order).tolist() == [str(s[8 - order :]).count("1") % 2 for s in strings]
        assert delayed_match(bits, order).tolist() == [int(s[7] == s[8 - order]) for s in strings]


@pytest.mark.parametrize("question", ["parity", "match"])
def test_each_domain_asks_about_its_own_number_of_bits(question: str) -> None:
    source = BinarySequences(question, orders=(2, 5), length=6, samples=30, test_samples=10, seed=1)
    stream = ContinualDataModule(source, DomainIncremental(), batch_size=30)
    stream.setup("fit")
    answer = {"parity": parity, "match": delayed_match}[question]
    for task, order in enumerate((2, 5)):
        x, y = stream.batch(stream.layout.train_index[task], view="eval")
        assert x.shape == (30, 6, 1)
        assert torch.equal(y, answer((x[..., 0] + 1) / 2, order))
    again = BinarySequences(question, orders=(2, 5), length=6, samples=30, test_samples=10, seed=1)
    again.setup()
    assert torch.equal(again.item("test", 19)[0], source.item("test", 19)[0])


@pytest.mark.parametrize("question", ["parity", "match"])
def test_what_answers_one_order_is_right_for_half_of_the_strings_at_another(question: str) -> None:
    """Why a single head forgets, whatever the network: all strings of six bits."""
    bits = torch.tensor(list(itertools.product((0, 1), repeat=6)))
    answers = answers_of_heads(bits, question, (2, 3, 5), slice(0, 3))
    for one, other in itertools.permutations(range(3), 2):
        assert (answers[:, one] == answers[:, other]).sum() == 32


@pytest.mark.parametrize("question", ["parity", "match"])
def test_several_heads_are_asked_what_one_head_is_and_all_before_while_they_learn(question: str) -> None:
    orders = (2, 3, 5)
    shape = {"orders": orders, "length": 6, "samples": 20, "test_samples": 7, "seed": 1}
    one, several = BinarySequences(question, **shape), BinarySequences(question, **shape, heads="several")
    stream = ContinualDataModule(several, DomainIncremental(), batch_size=20)
    stream.setup("fit")
    one.setup()
    for task in range(3):
        x, y = stream.batch(stream.layout.train_index[task], view="eval")
        bits = (x[..., 0] + 1) / 2
        assert y.shape == (20, 3)
        for head, order in enumerate(orders):
            expected = {"parity": parity, "match": delayed_match}[question](bits, order)
            assert torch.equal(y[:, head], expected if head <= task else torch.full((20,), -100))
        tested = [several.item("test", 7 * task + at) for at in range(7)]
        alone = [one.item("test", 7 * task + at) for at in range(7)]
        for (bits, answers), (same, answer) in zip(tested, alone, strict=True):
            assert torch.equal(bits, same)
            assert answers.tolist() == [int(answer) if head == task else -100 for head in range(3)]


def test_a_change_of_law_makes_the_error_that_it_says() -> None:
    source = DriftStream(change_points=[4000], steps=8000, mix=0.3, noise=0.1, window=3)
    source.setup()
    old, new = source.weights
    assert float(old @ new) == pytest.approx(0.3, abs=1e-5)
    rows = [source.item("train", at) for at in range(8000)]
    x, y = torch.stack([row[0][-1, :-1] for row in rows]), torch.stack([row[1] for row in rows])[:, 0]
    error = (x @ old - y).square()
    assert float(error[:4000].mean()) == pytest.approx(0.01, rel=0.1)
    assert float(error[4000:].mean()) == pytest.approx(2 - 2 * 0.3 + 0.01, rel=0.1)


def test_a_window_holds_the_steps_before_and_their_targets() -> None:
    source = DriftStream(change_points=[5], steps=9, width=2, window=3)
    source.setup()
    items = [source.item("train", at) for at in range(9)]
    assert not items[0][0][:2].any()  # nothing before the first step
    for at in range(2, 9):
        assert torch.equal(items[at][0][:2], torch.stack([items[at - 2][0][-1], items[at - 1][0][-1]]))
        assert torch.equal(items[at][0][-1, -1:], items[at - 1][1])
    assert source.train_domains is not None
    assert source.train_domains.tolist() == [0] * 5 + [1] * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinarySequences("sum"), '"parity" or "match"'),
        (lambda: BinarySequences(heads="two"), '"one" or "several"'),
        (lambda: BinarySequences(orders=(1, 2)), "from 2 to `length`, 16"),
        (lambda: DriftStream(change_points=[9, 9]), "ascending steps between 0 and 1500"),
        (lambda: DriftStream(mix=1.5), "a cosine in"),
        (lambda: DriftStream(window=0), "a window of at least 1"),
        (lambda: DriftStream(noise=-0.1), "a deviation of at least 0"),
    ],
)
def test_what_cannot_be_made_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
