"""Semantic targets: one vector per class name, from text models, files or as controls without language."""

from lightning_cl.class_embeddings.base import TargetProvider, check_targets, fill, normal_name
from lightning_cl.class_embeddings.controls import OrthogonalTargets, RandomTargets, SimplexTargets
from lightning_cl.class_embeddings.files import FileTargets, TensorTargets
from lightning_cl.class_embeddings.text import OpenCLIPTargets, SentenceTargets

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
