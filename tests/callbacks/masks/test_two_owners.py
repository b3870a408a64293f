"""Two methods that decide which task a weight belongs to are one error."""

from __future__ import annotations

import pytest

from lightning_cl.callbacks import HAT, PackNet

from .task_runs import told_run

pytestmark = pytest.mark.filterwarnings("ignore")


def test_both_are_named():
    with pytest.raises(ValueError, match=r"PackNet and HAT each decide which task a weight belongs to.*use one"):
        told_run(PackNet(), callbacks=[HAT()])
