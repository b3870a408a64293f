"""Give a live module a mixin in front of its own class; the function lives in :mod:`lightning_cl.nn.extension`."""

from lightning_cl.nn.extension import extend

__all__ = ["extend"]
