"""An image classifier without code: any timm model with any optimiser and schedule, by name or from a config."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from lightning_cl.models.backbones import build_backbone
from lightning_cl.models.classifier import Classifier, OptimizerName, ScheduleName
from lightning_cl.namespace import LRSchedulerCallable, OptimizerCallable


class ImageClassifier(Classifier):
    """Any timm model trained with cross-entropy; there is nothing continual in it.

    The network is ``net``, so its head is ``net.head`` (ViT) or ``net.fc`` (ResNet). It logs ``train_loss``,
    ``val_loss``, ``val_acc``, ``test_loss`` and ``test_acc``; accuracies are fractions of all evaluated samples, and
    samples that only pad a process's last batch are left out.

    Learning-rate schedules count epochs **within a task**: they begin anew at every task start, whether or not the
    method asks for fresh optimisers. Without a stream they span the whole run.

    Args:
        backbone: A name that ``timm.create_model`` knows. Pin the tag (``"vit_base_patch16_224.augreg_in21k"``): what
            an untagged name loads has changed between timm versions.
        pretrained: Load timm's weights for that name.
        num_classes: Outputs of the head. ``None``: as many as the stream has classes, also one that was extended,
            when the Trainer comes; the command line takes it from the data.
        optimizer: ``"adam"``, ``"adamw"`` or ``"sgd"`` (momentum 0.9), with ``lr`` and ``weight_decay``; or any
            optimiser: ``{class_path: torch.optim.NAdam, init_args: {...}}``, from Python a function of the parameters.
        lr: Learning rate of an optimiser given by name; ``None``: 0.001.
        weight_decay: Weight decay of an optimiser given by name; ``None``: 0.
        lr_schedule: ``"constant"``; ``"cosine"`` towards 0 over the task's epochs; ``"coda_cosine"``, see
            :func:`~lightning_cl.nn.coda_cosine`; ``"coda_cosine_released"``, as the released code trains, see
            :func:`~lightning_cl.nn.coda_cosine_released`; ``"cpe_clip"``, see
            :func:`~lightning_cl.nn.cpe_clip_warmup`; or any scheduler that steps once an epoch, from Python a function
            of the optimiser. Lightning's ``ReduceLROnPlateau`` watches its ``monitor``.
        checkpoint_path: A local file (.safetensors or .pth) with weights for ``backbone``; needs no network. A head
            of another size is left out.
        batch_keys: Names of image and label in batches that are dictionaries.
        backbone_kwargs: More arguments of ``timm.create_model``, for example ``{img_size: 112}``.

    Raises:
        ValueError: For an unknown backbone (the nearest are named), weights that cannot be had, an unknown
            optimiser or schedule, or ``lr`` or ``weight_decay`` beside an optimiser that
            is not given by name.
    """

    def __init__(
        self,
        backbone: str = "vit_nano_omniglot",
        pretrained: bool = True,
        num_classes: int | None = None,
        optimizer: OptimizerName | OptimizerCallable = "adam",
        lr: float | None = None,
        weight_decay: float | None = None,
        lr_schedule: ScheduleName | LRSchedulerCallable = "constant",
        checkpoint_path: str | None = None,
        batch_keys: tuple[str, str] = ("image", "label"),
        backbone_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_classes, optimizer, lr, weight_decay, lr_schedule, batch_keys)
        #: As plain values, from which a model folder builds it again.
        self.constructor_arguments: dict[str, Any] = {
            "backbone": backbone,
            "pretrained": pretrained,
            "optimizer": optimizer,
            "lr": lr,
            "weight_decay": weight_decay,
            "lr_schedule": lr_schedule,
            "checkpoint_path": checkpoint_path,
            "batch_keys": batch_keys,
            "backbone_kwargs": backbone_kwargs,
        }
        if num_classes is not None:
            self._build(num_classes)

    def _build(self, num_classes: int) -> None:
        given = self.constructor_arguments
        options = given["backbone_kwargs"] or {}
        path = given["checkpoint_path"]
        self.net = build_backbone(given["backbone"], given["pretrained"], num_classes, path, options)

    def setup(self, stage: str) -> None:
        """Make the network for the classes of the stream, unless their number was given."""
        if not hasattr(self, "net"):
            self._build(self.num_classes_of_stream())

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` images to ``(B, num_classes)`` logits."""
        return cast(Tensor, self.net(images))
