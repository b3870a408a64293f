"""Class prototypes: running means of features, and the logits they give."""

from lightning_cl.nn.heads.prototypes import Distance, PrototypeHead

#: The name that it had first.
PrototypeBank = PrototypeHead

__all__ = ["Distance", "PrototypeBank"]
