"""Pure functions of an accuracy matrix, of the accuracy at any time, and of logits under a label space."""

from lightning_cl.metrics.functional._matrix import finished_stages
from lightning_cl.metrics.functional.accuracy import (
    accuracy_per_stage,
    average_accuracy,
    average_incremental_accuracy,
    knowledge_rate,
    learning_accuracy,
)
from lightning_cl.metrics.functional.adaptation import (
    accuracy_after_adaptation,
    accuracy_before_adaptation,
    adaptation_summary,
)
from lightning_cl.metrics.functional.anytime import (
    a_auc,
    a_avg,
    a_last,
    accuracy_of_counts,
    average_anytime_accuracy,
    f_last,
    prequential_accuracy,
)
from lightning_cl.metrics.functional.boundaries import BoundaryScore, boundary_score
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
from lightning_cl.metrics.functional.fscil import (
    average_harmonic_mean,
    base_accuracy,
    episode_interval,
    generalised_accuracy,
    generalised_accuracy_area,
    harmonic_mean,
    novel_accuracy,
    performance_drop,
    session_summary,
)
from lightning_cl.metrics.functional.hierarchy import level_accuracy
from lightning_cl.metrics.functional.item_curves import (
    class_curves,
    fact_forgetting,
    forgetting_rate,
    item_times,
    learnability,
    retention,
    without_outliers,
)
from lightning_cl.metrics.functional.predictions import (
    class_il_predictions,
    class_table,
    mask_logits,
    task_il_predictions,
)
from lightning_cl.metrics.functional.recovery import recovery_time
from lightning_cl.metrics.functional.stability import (
    learning_curve_area,
    min_acc,
    wc_acc,
    windowed_forgetting,
    windowed_plasticity,
)
from lightning_cl.metrics.functional.summary import summarise
from lightning_cl.metrics.functional.transfer import backward_transfer, forward_transfer, intransigence
from lightning_cl.metrics.functional.unlearning import (
    forget_drop,
    forget_harmonic_mean,
    forget_summary,
    forgotten_accuracy,
    retain_accuracy,
)
from lightning_cl.metrics.functional.unlearning_probes import (
    forget_generalisation,
    kolmogorov_smirnov,
    membership_gap,
)

__all__ = [
    "BoundaryScore",
    "ForgettingVariant",
    "a_auc",
    "a_avg",
    "a_last",
    "accuracy_after_adaptation",
    "accuracy_before_adaptation",
    "accuracy_of_counts",
    "accuracy_per_stage",
    "adaptation_summary",
    "average_accuracy",
    "average_anytime_accuracy",
    "average_harmonic_mean",
    "average_incremental_accuracy",
    "backward_transfer",
    "backward_transfer_dr",
    "base_accuracy",
    "boundary_score",
    "class_curves",
    "class_il_predictions",
    "class_table",
    "episode_interval",
    "f_last",
    "fact_forgetting",
    "finished_stages",
    "forget_drop",
    "forget_generalisation",
    "forget_harmonic_mean",
    "forget_summary",
    "forgetting",
    "forgetting_rate",
    "forgotten_accuracy",
    "forward_transfer",
    "forward_transfer_dr",
    "generalised_accuracy",
    "generalised_accuracy_area",
    "harmonic_mean",
    "intransigence",
    "item_times",
    "knowledge_rate",
    "kolmogorov_smirnov",
    "learnability",
    "learning_accuracy",
    "learning_curve_area",
    "level_accuracy",
    "mask_logits",
    "matrix_accuracy_dr",
    "membership_gap",
    "min_acc",
    "never_learned",
    "novel_accuracy",
    "performance_drop",
    "positive_backward_transfer_dr",
    "prequential_accuracy",
    "recovery_time",
    "relative_forgetting",
    "remembering_dr",
    "retain_accuracy",
    "retention",
    "session_summary",
    "summarise",
    "task_forgetting",
    "task_il_predictions",
    "wc_acc",
    "windowed_forgetting",
    "windowed_plasticity",
    "without_outliers",
]
