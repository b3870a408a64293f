"""The detector on sequences with known answers, its state, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lightning_cl.training.loss_plateau import LossPlateau, check_window


def fired(losses: list[float], **options: float) -> list[int]:
    detector = LossPlateau(**{"window": 4, "mean": 0.5, "deviation": 0.05, **options})  # type: ignore[arg-type]
    return [place for place, loss in enumerate(losses) if detector.observe(loss)]


def test_it_never_answers_on_a_constant_loss() -> None:
    assert fired([0.1] * 50) == []
    assert fired([2.0] * 50) == []


def test_it_answers_once_for_each_step_between_plateaus() -> None:
    assert fired([0.1] * 10 + [0.3] * 10) == [13]  # the first window of the new plateau alone
    assert fired([0.1] * 10 + [0.3] * 10 + [0.4] * 10) == [13, 20]
    assert fired([0.4] * 10 + [0.1] * 10) == []  # it fell, without a peak
    assert fired([0.1] * 10 + [3.0] * 10 + [0.1] * 10) == [23]


def test_the_first_plateau_counts_if_the_loss_has_fallen_to_it() -> None:
    assert fired([2.0, 1.5, 1.0, 0.5] + [0.1] * 10) == [7]


def test_noise_below_the_deviation_of_the_plateau_is_no_peak() -> None:
    assert fired([0.1, 0.12] * 25) == []


def test_its_state_is_in_its_buffers() -> None:
    losses = [2.0, 1.5] + [0.1] * 10 + [3.0] * 6 + [0.2] * 10
    whole = fired(losses)
    assert len(whole) == 2
    for cut in range(1, len(losses)):
        first, second = (LossPlateau(4, 0.5, 0.05) for _ in range(2))
        found = [place for place, loss in enumerate(losses[:cut]) if first.observe(loss)]
        second.load_state_dict(first.state_dict())
        found += [cut + place for place, loss in enumerate(losses[cut:]) if second.observe(loss)]
        assert found == whole


def test_what_cannot_find_anything_is_refused() -> None:
    stream = SimpleNamespace(tasks=[SimpleNamespace(index=0, epochs=2), SimpleNamespace(index=1, epochs=1)])
    stream.num_batches = {0: 3, 1: 2}.get
    with pytest.raises(ValueError, match=r"`window` is 9 losses, but the stream has 8 training batches"):
        check_window(9, stream)
    check_window(8, stream)
    for options, message in (({"window": 1}, "at least 2"), ({"mean": 0}, "above 0"), ({"deviation": -1}, "above 0")):
        with pytest.raises(ValueError, match=message):
            fired([], **options)
