"""A scan goes on where it was interrupted, and ends with a pass that finds nothing."""

from __future__ import annotations

import copy

from lightning_cl.training.scan import Scan


def test_one_batch_of_five_is_found_and_a_second_pass_finds_nothing():
    scan, passes, seen = Scan(), [], []

    def batches():
        passes.append(0)
        return range(5)

    def find(batch):
        seen.append(batch)
        return batch == 2 and len(passes) == 1  # what was added since knows it

    assert scan.go_on(batches, find)
    assert seen == [0, 1, 2]
    passes.clear()  # the pass that goes on begins again, and leaves out what was looked at
    passes.append(0)
    assert not scan.go_on(batches, find)
    assert seen == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_two_in_a_pass_and_a_stop_between_them():
    scan, known, seen = Scan(), set(), []

    def find(batch):
        seen.append(batch)
        return batch in (1, 3) and batch not in known

    for expected in (1, 3):
        assert scan.go_on(lambda: range(4), find)
        known.add(expected)
        again = Scan()
        again.load_state_dict(copy.deepcopy(scan.state_dict()))  # a resumed run
        scan = again
    assert not scan.go_on(lambda: range(4), find)
    assert seen == [0, 1, 2, 3, 0, 1, 2, 3]
    scan.start()
    assert not scan.go_on(lambda: range(0), find)
