"""A run that loses power again and again, anywhere, ends with the bits of one that did not."""

from __future__ import annotations

import pytest

from lightning_cl.datamodules import SiBlurry

from .killing import PLACES, attempt, draw_points, lightnings_own, ours
from .methods import SEVEREST, THOROUGH
from .modules import ASKING, FOREIGN_DICT, FOREIGN_TUPLE, PLAIN, SPLIT
from .records import differences

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
methods, chained = (
    pytest.mark.parametrize("method", chosen, ids=lambda m: m.__name__) for chosen in (THOROUGH, SEVEREST)
)
#: Three tasks of 27 images in batches of 4: 7 steps an epoch, 35 in all, every epoch with a short last batch.
OFFLINE = {"batch_size": 4, "epochs_per_task": (1, 2, 2)}
#: The same 81 images once, blurred over the tasks; two steps on every batch, and classes that appear in mid-task.
ONLINE = {"batch_size": 4, "epochs_per_task": 1, "updates_per_batch": 2, "scenario": SiBlurry(3, seed=4)}
#: Steps after which there is a validation.
OFFLINE_ENDS, ONLINE_ENDS = range(7, 36, 7), (14, 22, 42)
#: The offline stream with the gradients of three batches in a step, the last step of an epoch with those of one.
ACCUMULATED_ENDS = range(3, 16, 3)
#: Power cuts in an offline run, in an online one, and in one of accumulated gradients.
CHAIN, ONLINE_CHAIN, ACCUMULATED_CHAIN = 12, 5, 5
#: What single power cuts meet.
MODULES, SAVERS = (PLAIN, SPLIT, FOREIGN_TUPLE, FOREIGN_DICT), (ours, lightnings_own)
DROPOUT = 0.3  # so that the state of the random generators matters


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the uninterrupted run leaves behind, without data workers and without checkpoints on the way."""
    records = {}

    def get(case, method, stream, **trainer_options):
        key = (case, method, stream is ONLINE, *trainer_options)
        if key not in records:
            case.build("adamw", 0.0)  # imported here, and not anew in every child
            folder = tmp_path_factory.mktemp("whole")
            records[key] = attempt(
                case,
                method,
                folder,
                None,
                lightnings_own,
                99,
                dropout=DROPOUT,
                stream_options=stream,
                **trainer_options,
            )
        return records[key]

    return get


def options(turn, stream):
    """Some processes have data workers, and the distance between checkpoints varies: no bit depends on them."""
    workers = {"num_workers": 2 * (turn % 5 == 1)}  # a run with them takes three times as long
    return {"every": 1 + turn % 3, "dropout": DROPOUT, "stream_options": {**stream, **workers}}


@chained
@pytest.mark.parametrize(
    ("stream", "ends", "count", "saving"),
    [(OFFLINE, OFFLINE_ENDS, CHAIN, lightnings_own), (ONLINE, ONLINE_ENDS, ONLINE_CHAIN, ours)],
    ids=["offline", "online"],
)
def test_a_chain_of_power_cuts(method, stream, ends, count, saving, whole, tmp_path):
    if stream is ONLINE and method.stream_kind != "labelled":
        pytest.skip("the method is made for another kind of stream")
    if stream is ONLINE and method.boundaries == "needed":
        pytest.skip("the method does something where a task ends, and nobody tells where that is")
    if stream is ONLINE and method.needs_task_identity:
        pytest.skip("the method keeps a head for each task, and the classes of this stream are in several")
    expected = whole(ASKING, method, stream)
    if method.stream_kind == "labelled":
        assert expected["steps"] == ends[-1]
    assert expected["steps"] >= ends[-1]
    points = draw_points(f"chain of {count} in {method.__name__}", count, ends)
    for turn, point in enumerate(points):
        killed = attempt(ASKING, method, tmp_path, point, saving, **options(turn, stream))
        assert killed is None, f"{point} was not reached"
    resumed = attempt(ASKING, method, tmp_path, None, saving, **options(0, stream))
    assert resumed is not None
    assert differences(resumed, expected) == [], points


@chained
def test_a_chain_of_power_cuts_between_accumulated_gradients(method, whole, tmp_path):
    """Lightning's own checkpoint may be written between two of them in a run that was resumed, and lacks their sum."""
    accumulated = {"accumulate_grad_batches": 3}
    expected = whole(ASKING, method, OFFLINE, **accumulated)
    assert expected["steps"] == ACCUMULATED_ENDS[-1]
    points = draw_points(f"accumulated in {method.__name__}", ACCUMULATED_CHAIN, ACCUMULATED_ENDS)
    for turn, point in enumerate(points):
        killed = attempt(ASKING, method, tmp_path, point, ours, **options(turn, OFFLINE), **accumulated)
        assert killed is None, f"{point} was not reached"
    resumed = attempt(ASKING, method, tmp_path, None, ours, **options(0, OFFLINE), **accumulated)
    assert resumed is not None
    assert differences(resumed, expected) == [], points


def single_cut(turn, second):
    """The module of the first or second cut of a method, who saves, and the place."""
    series = turn // len(MODULES)
    module, place = MODULES[(turn + 2 * second) % len(MODULES)], PLACES[(series + 3 * second) % len(PLACES)]
    return module, SAVERS[series % len(SAVERS)], place


def test_every_module_meets_every_place_and_both_savers():
    met = [single_cut(turn, second) for turn in range(len(THOROUGH)) for second in (False, True)]
    assert len({(module, place) for module, _, place in met}) == len(MODULES) * len(PLACES)
    assert len({(module, saving) for module, saving, _ in met}) == len(MODULES) * len(SAVERS)


@methods
@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
def test_one_power_cut(method, second, whole, tmp_path):
    """Each method on two modules."""
    turn = THOROUGH.index(method)
    case, saving, place = single_cut(turn, second)
    given = options(turn, OFFLINE)
    expected = whole(case, method, OFFLINE)
    point = next(p for p in draw_points(f"cuts of {method.__name__}", len(PLACES), OFFLINE_ENDS) if p.place == place)
    assert attempt(case, method, tmp_path, point, saving, **given) is None, f"{point} was not reached"
    resumed = attempt(case, method, tmp_path, None, saving, **given)
    assert resumed is not None
    assert differences(resumed, expected) == [], point
