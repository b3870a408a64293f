"""Semantic targets: one vector per class name, from text models, files or as controls without language."""

from lightning_cl.targets.base import TargetProvider, check_targets, fill, normal_name
from lightning_cl.targets.controls import OrthogonalTargets, RandomTargets, SimplexTargets
from lightning_cl.targets.files import FileTargets, TensorTargets
from lightning_cl.targets.text import OpenCLIPTargets, SentenceTargets

__all__ = [
    "FileTargets",
    "OpenCLIPTargets",
    "OrthogonalTargets",
    "RandomTargets",
    "SentenceTargets",
    "SimplexTargets",
    "TargetProvider",
    "TensorTargets",
    "check_targets",
    "fill",
    "normal_name",
]
