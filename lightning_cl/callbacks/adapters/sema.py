"""SEMA: adapters are added where a layer's features are unlike all that it has seen, and mixed by routers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from lightning_cl.callbacks.adapters.self_expansion import SelfExpansion
from lightning_cl.callbacks.adapters.task_adapters import PerTaskMethod
from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.nn.adapters import Adapter, AdapterMixture, freeze_backbone, inject
from lightning_cl.nn.adapters.sites import exactly
from lightning_cl.training.find_backbone import find_vit


@dataclass(eq=False)
class SEMA(PerTaskMethod):
    """Self-expansion of pre-trained models with modular adaptation (SEMA; Wang et al., CVPR 2025, arXiv:2403.18886).

    Every block of a frozen ViT has an adapter beside its MLP, which reads what the MLP's norm reads. The last
    ``expandable`` blocks have lists of them, mixed with ``softmax`` weights of a router, one column for each adapter,
    on the mean token; each has a descriptor, an autoencoder of mean tokens with a record of its last ``window`` errors.
    The first task trains one adapter everywhere, by the user's loss, and the descriptors at its end. A later task is
    first scanned, on the evaluation transform: with ``z_k = |error_k - mean_k| / std_k``, averaged over ``scan_batch``
    samples, the first block whose smallest ``z`` is above ``threshold`` gets another adapter and router column, which
    alone learn, with the head, for the next of ``expandable`` equal parts of the task's epochs; then its descriptor,
    after which the scan goes on, until a whole pass adds nothing. A block grows once a task at most. Where nothing is
    added the head learns alone for one part, and nothing does in the rest: give ``expandable`` times the epochs that an
    adapter is to have, and a learning rate that does not fall over them.

    In an online stream, where nobody tells a boundary, all blocks' newest adapters learn, their descriptors learn from
    each batch, and a batch that is above the threshold for all descriptors of a block, the newest of which has a full
    record, adds an adapter: a rule of our own.

    The released code scans in batches of 128, trains descriptors on augmented images, and lets old head rows decay,
    where here they stay. Defaults are its own for CIFAR-100 (SGD with momentum, 0.005, decay 5e-4, 5 epochs an
    adapter). Keeps at most one adapter (``2 D rank``) and descriptor (``2 D hidden``) a task in each of the last
    blocks, and no sample; a step costs an adapter's, a scan up to ``expandable + 2`` passes over a task. Works on timm
    ViTs.

    Args:
        expandable: Blocks at the end of the ViT that may grow, at least 1; at most all.
        threshold: On ``z``; the paper has 2, and 1 for ImageNet-A and VTAB. Infinity: nothing is ever added.
        hidden: Size of a descriptor's inner features, at least 1.
        descriptor_epochs: On each adapter's task, at least 1.
        descriptor_lr: Learning rate of descriptors, above 0.
        window: Errors in a record, at least 3.
        scan_batch: Samples over which ``z`` is averaged, at least 1.

    Raises:
        ValueError: If a number is out of its range; when attached, without a ViT whose blocks can be adapted.
    """

    state_key: ClassVar[str] = "lightning_cl.SEMA"
    adds_loss: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"rank": 4, "expandable": 2, "hidden": 8, "threshold": -1.0, "window": 12}

    rank: int = 16
    expandable: int = at_least(1, default=3)
    threshold: float = 2.0
    hidden: int = at_least(1, default=128)
    descriptor_epochs: int = at_least(1, default=20)
    descriptor_lr: float = above(0, default=0.01)
    window: int = at_least(3, default=500)
    scan_batch: int = at_least(1, default=128)

    def build(self, pl_module: Any, info: Any) -> SelfExpansion:
        """Freeze the ViT; put an adapter beside the MLP of each early block, and room for one a task beside others."""
        _, vit = find_vit(pl_module, self.backbone)
        width, places = vit.embed_dim, [f"blocks.{index}.drop_path2" for index in range(len(vit.blocks))]
        first, last = places[: -self.expandable], places[-self.expandable :]

        def plain(layer: nn.Module) -> Adapter:
            return Adapter(1, width, self.rank, 1.0, 0.0)

        def mixture(layer: nn.Module) -> AdapterMixture:
            return AdapterMixture(info.num_tasks, width, self.rank)

        early = inject(vit, plain, exactly(first), "sema", "norm2") if first else None
        layers = [inject(vit, mixture, exactly([place]), "sema", "norm2") for place in last]
        freeze_backbone(vit)
        return SelfExpansion(early, layers, self, width, info.num_tasks)
