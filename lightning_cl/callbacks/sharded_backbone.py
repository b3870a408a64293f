"""``ShardedBackbone``: a frozen backbone that is too large for one device, shared out over the processes of DDP."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_cl.namespace import Callback, DDPStrategy, LightningModule, Trainer
from lightning_cl.nn.feature_reuse import FeatureBypass
from lightning_cl.nn.sharding import frozen_linears, process_mesh, shard_linear
from lightning_cl.training.find_backbone import find_vit


def shard_backbone(module: nn.Module, mesh: Any, backbone: str | None = None) -> list[str]:
    """Share the frozen blocks of the ViT in ``module`` out over the processes; call it after methods are attached.

    Args:
        module: The same on every process.
        mesh: One-dimensional ``DeviceMesh`` of the processes.
        backbone: Dotted path of the ViT; found when ``None``.

    Returns:
        Names of the parameters that are now shared out, which DDP must leave alone.

    Raises:
        ValueError: If there is no timm ViT (CLIP's attention reads its weights directly), or its blocks are trained.
    """
    _, vit = find_vit(module, backbone)
    blocks: Any = vit.blocks
    for layer in frozen_linears(blocks):
        shard_linear(layer, mesh)
    for part in module.modules():
        _never_skip(part)
    return [name for name, parameter in module.named_parameters() if hasattr(parameter, "to_local")]


def _never_skip(part: nn.Module) -> None:
    """All processes must run the same layers; known features would let one skip what another needs."""
    state, bypass = part.__dict__.get("_prompt_state"), part.__dict__.get("bypass")
    caches = ([state[1]] if state is not None else []) + ([bypass.cache] if isinstance(bypass, FeatureBypass) else [])
    for cache in caches:
        cache.enabled = False


class ShardedBackbone(Callback):
    """Shares the weights of a frozen timm ViT out over the processes (FSDP2); prompts, heads and buffers stay whole.

    ``Trainer(strategy="ddp", devices=4, callbacks=[CODAPrompt(), ShardedBackbone()])``: the weights of each layer are
    gathered for the moment in which it is used, so a process keeps ``1 / devices`` of the backbone and one whole layer.
    What is trained is reduced by DDP as always: the result is that of one process, and checkpoints are those of a
    module that is not shared out. With one process it does nothing.

    Features of evaluation images are not remembered, and evaluation runs without PyTorch's inference mode.

    Args:
        backbone: Dotted path of the ViT; found when ``None``.

    Raises:
        ValueError: When a fit or an evaluation begins: if the strategy is not DDP, there is no timm ViT, or its blocks
            are trained.
    """

    state_key = "lightning_cl.ShardedBackbone"

    def __init__(self, backbone: str | None = None) -> None:
        self.backbone = backbone

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Share the blocks out, once, behind the methods (which come first on a stream) and before DDP wraps them."""
        if trainer.world_size == 1:
            return
        if type(trainer.strategy) is not DDPStrategy:
            raise ValueError(
                f"the strategy is {type(trainer.strategy).__name__}, but `ShardedBackbone` shares the frozen backbone "
                'out by itself, while DDP reduces what is trained; use `Trainer(strategy="ddp")`.'
            )
        for loop in (trainer.validate_loop, trainer.test_loop, trainer.fit_loop.epoch_loop.val_loop):
            loop.inference_mode = False  # its tensors could not be used for training afterwards
        ignored = getattr(pl_module, "_ddp_params_and_buffers_to_ignore", None)
        if ignored is None:
            pl_module.to(trainer.strategy.root_device)
            names = shard_backbone(pl_module, process_mesh(trainer.strategy.root_device), self.backbone)
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(pl_module, names)
