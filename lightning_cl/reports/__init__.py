"""The report of a run, its figures and tables, the protocol card, and comparisons of runs."""

from lightning_cl.reports.anytime_curve import AnytimeCurve
from lightning_cl.reports.anytime_plots import plot_anytime_curve
from lightning_cl.reports.comparison_plots import plot_anytime_comparison
from lightning_cl.reports.plots import plot_accuracy_curves, plot_accuracy_matrix, plot_metric_curve
from lightning_cl.reports.protocol import ProtocolCard, ProtocolError
from lightning_cl.reports.report import ContinualReport
from lightning_cl.reports.report import read as read_report
from lightning_cl.reports.tables import protocol_table, rich_table

__all__ = [
    "AnytimeCurve",
    "ContinualReport",
    "ProtocolCard",
    "ProtocolError",
    "plot_accuracy_curves",
    "plot_accuracy_matrix",
    "plot_anytime_comparison",
    "plot_anytime_curve",
    "plot_metric_curve",
    "protocol_table",
    "read_report",
    "rich_table",
]
