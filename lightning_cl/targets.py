"""The former name of :mod:`lightning_cl.class_embeddings`."""

import warnings

from lightning_cl.class_embeddings import *  # noqa: F403
from lightning_cl.class_embeddings import __all__ as __all__

warnings.warn("lightning_cl.targets is called lightning_cl.class_embeddings now", FutureWarning, stacklevel=2)
