"""A run that loses power again and again, anywhere, ends with the bits of one that did not."""

from __future__ import annotations

import pytest

from .killing import attempt, draw_points
from .methods import METHODS
from .modules import FOREIGN_DICT, FOREIGN_TUPLE, PLAIN, SPLIT
from .records import differences

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
#: Three tasks of 27 images in batches of 4: 7 steps an epoch, 35 in all, every epoch with a short last batch.
STREAM = {"batch_size": 4, "epochs_per_task": (1, 2, 2)}
STEPS = 35 - 3  # so that a checkpoint is still to come, with one every three steps
#: A chain of power cuts in one run, and runs that lose power once.
CHAIN, SINGLE = 18, 6
DROPOUT = 0.3  # so that the state of the random generators matters


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the uninterrupted run leaves behind, without data workers and without checkpoints on the way."""
    records = {}

    def get(case, method):
        if (case, method) not in records:
            case.build("adamw", 0.0)  # imported here, and not anew in every child
            folder = tmp_path_factory.mktemp("whole")
            records[case, method] = attempt(case, method, folder, None, 99, dropout=DROPOUT, stream_options=STREAM)
        return records[case, method]

    return get


def workers(turn: int) -> dict[str, object]:
    """Every second process has data workers: the bits must not depend on them."""
    return {**STREAM, "num_workers": 2 * (turn % 2)}


@methods
def test_a_chain_of_power_cuts(method, whole, tmp_path):
    points = draw_points(f"chain of {method.__name__}", CHAIN, STEPS)
    for turn, point in enumerate(points):
        options = {"every": 1 + turn % 3, "dropout": DROPOUT, "stream_options": workers(turn)}
        assert attempt(PLAIN, method, tmp_path, point, **options) is None, f"{point} was not reached"
    resumed = attempt(PLAIN, method, tmp_path, None, 1, dropout=DROPOUT, stream_options=STREAM)
    assert resumed is not None
    assert differences(resumed, whole(PLAIN, method)) == [], points


@methods
@pytest.mark.parametrize("turn", range(SINGLE))
def test_one_power_cut(method, turn, whole, tmp_path):
    case = (PLAIN, SPLIT, FOREIGN_TUPLE, FOREIGN_DICT)[turn % 4]
    point = draw_points(f"cuts of {method.__name__}", SINGLE, STEPS)[turn]
    options = {"every": 1 + turn % 3, "dropout": DROPOUT, "stream_options": workers(turn)}
    expected = whole(case, method)
    assert attempt(case, method, tmp_path, point, **options) is None, f"{point} was not reached"
    resumed = attempt(case, method, tmp_path, None, **options)
    assert resumed is not None
    assert differences(resumed, expected) == [], point
