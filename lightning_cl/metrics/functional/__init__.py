"""Pure functions of an accuracy matrix, and of logits under a label space."""

from lightning_cl.metrics.functional._matrix import finished_stages
from lightning_cl.metrics.functional.accuracy import (
    accuracy_per_stage,
    average_accuracy,
    average_incremental_accuracy,
    knowledge_rate,
    learning_accuracy,
)
from lightning_cl.metrics.functional.diaz_rodriguez import (
    backward_transfer_dr,
    forward_transfer_dr,
    matrix_accuracy_dr,
    positive_backward_transfer_dr,
    remembering_dr,
)
from lightning_cl.metrics.functional.forgetting import (
    ForgettingVariant,
    forgetting,
    never_learned,
    relative_forgetting,
    task_forgetting,
)
from lightning_cl.metrics.functional.predictions import (
    class_il_predictions,
    class_table,
    mask_logits,
    task_il_predictions,
)
from lightning_cl.metrics.functional.transfer import backward_transfer, forward_transfer, intransigence

__all__ = [
    "ForgettingVariant",
    "accuracy_per_stage",
    "average_accuracy",
    "average_incremental_accuracy",
    "backward_transfer",
    "backward_transfer_dr",
    "class_il_predictions",
    "class_table",
    "finished_stages",
    "forgetting",
    "forward_transfer",
    "forward_transfer_dr",
    "intransigence",
    "knowledge_rate",
    "learning_accuracy",
    "mask_logits",
    "matrix_accuracy_dr",
    "never_learned",
    "positive_backward_transfer_dr",
    "relative_forgetting",
    "remembering_dr",
    "task_forgetting",
    "task_il_predictions",
]
