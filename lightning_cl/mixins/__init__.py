"""What one training step of a LightningModule does differently: mixins, and :func:`extend` to add them."""

from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.mixins.extending import extend
from lightning_cl.mixins.prompt import PromptMixin

__all__ = ["ContinualMixin", "PromptMixin", "extend"]
