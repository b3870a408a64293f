"""Models for the command line, and the small backbone that ships with the package."""

from __future__ import annotations

from lightning_cl.models.clip_classifier import CLIPClassifier
from lightning_cl.models.image_classifier import ImageClassifier
from lightning_cl.models.nano_vit import vit_nano_omniglot

__all__ = ["CLIPClassifier", "ImageClassifier", "vit_nano_omniglot"]
