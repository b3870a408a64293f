"""Hyperparameters are chosen on one stream and evaluated on another; the report says how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lightning_cl.callbacks.base import ContinualCallback, require_stream
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.reports.protocol import ProtocolError


class TwoPhaseProtocol(ContinualCallback):
    """Keeps the phase of tuning and the phase of evaluation apart (arXiv:2403.09066), and states both in the report.

    A run of the tuning phase is refused on a stream of the evaluation phase, and where it would be validated on the
    test split: the best of several test results is no test result. A run of the evaluation phase is refused on a stream
    that hyperparameters were chosen on.

    Args:
        phase: ``"tuning"`` or ``"evaluation"``.
        other_streams: Hashes of the streams of the other phase, as reports have them (``stream_hash``).
        facts: What else the report shall say, for instance what was tuned and how many trials were made.

    Raises:
        ValueError: For an unknown ``phase``.
        ProtocolError: In ``setup``, if the run would mix the phases.
    """

    state_key = "lightning_cl.TwoPhaseProtocol"

    def __init__(
        self,
        phase: Literal["tuning", "evaluation"],
        other_streams: Sequence[str] = (),
        facts: dict[str, Any] | None = None,
    ) -> None:
        if phase not in ("tuning", "evaluation"):
            raise ValueError(f'`phase` is {phase!r}; give "tuning" or "evaluation".')
        self.phase, self.other_streams, self.facts = phase, other_streams, facts

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a run that mixes the phases."""
        stream = require_stream(trainer, type(self).__name__)
        if stage != "fit":
            return
        refuse_mixing(self.phase, stream.info.fingerprint, stream.eval_data("val").split, self.other_streams)

    def report_facts(self) -> dict[str, Any]:
        """The phase, the hashes of the other one's streams, and what was given."""
        return {"phase": self.phase, "other_streams": list(self.other_streams), **(self.facts or {})}


def refuse_mixing(phase: str, fingerprint: str, split: str, other_streams: Sequence[str]) -> None:
    """Check that a stream may be used in a phase.

    Args:
        phase: ``"tuning"`` or ``"evaluation"``.
        fingerprint: Hash of the stream.
        split: The split that it validates on.
        other_streams: Hashes of the streams of the other phase.

    Raises:
        ProtocolError: If not.
    """
    if fingerprint in other_streams:
        other = "evaluation" if phase == "tuning" else "tuning"
        raise ProtocolError(
            f"the stream {fingerprint[:12]} is one of the {other} phase, so it cannot be used for {phase}: "
            "hyperparameters must be chosen on another stream than they are evaluated on; use other classes or "
            "another class order (`data.seed`)."
        )
    if phase == "tuning" and split == "test":
        raise ProtocolError(
            "hyperparameters would be chosen by results on the test split; hold out training data for it: "
            "`--data.val_split 0.2`."
        )
