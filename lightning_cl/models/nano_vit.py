"""A ViT small enough to ship inside the wheel, pre-trained on handwritten characters.

``vit_nano_omniglot`` is a plain timm `VisionTransformer` of 0.9 million parameters: 16x16 grey images, class token,
six blocks of width 128. Importing `lightning_cl.models` registers it, and its weights need no network::

    backbone = timm.create_model("vit_nano_omniglot", pretrained=True, num_classes=10)

Pixels: bright ink on a dark ground in [0, 1], then ``(x - 0.18) / 0.29``. Images that are dark on bright must be
inverted first. The scikit-learn digits (8x8, values 0 to 16) fit after ``x / 16`` and a bilinear resize to 16x16.

Weights: trained from scratch by ``pretraining/pretrain_nano_vit.py`` on all 32,460 drawings of Omniglot's 1,623
characters (Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program
induction", Science 2015; https://github.com/brendenlake/omniglot, MIT licence); the classifier was dropped and the
rest stored as float16. They have seen no digit data set, and every Omniglot class: a stream of Omniglot
says nothing about learning new classes with this backbone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights" / "vit_nano_omniglot.safetensors"


class ConvStem(nn.Module):
    """Four small convolutions in place of timm's patch embedding; two of them halve the image.

    A linear patch embedding learns strokes very slowly; early convolutions mend that ("Early Convolutions Help
    Transformers See Better", arXiv:2106.14881). `GroupNorm` and not `BatchNorm`: running statistics
    would drift from task to task, even in a frozen backbone.

    Takes the arguments that `VisionTransformer` gives its ``embed_layer``.

    Raises:
        ValueError: If ``patch_size`` is not 4 or ``img_size`` is not a multiple of 4.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 16,
        patch_size: int | tuple[int, int] = 4,
        in_chans: int = 1,
        embed_dim: int = 128,
        bias: bool = True,
        dynamic_img_pad: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else (img_size[0], img_size[1])
        self.patch_size = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)
        if self.patch_size != (4, 4):
            raise ValueError(f"`patch_size` is {patch_size} but two strides of 2 make patches of 4; leave it at 4.")
        if dynamic_img_pad or any(side % 4 for side in self.img_size):
            raise ValueError(f"`img_size` is {img_size}; give a multiple of 4, since images are not padded here.")
        self.grid_size = (self.img_size[0] // 4, self.img_size[1] // 4)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.net = nn.Sequential(
            nn.Conv2d(in_chans, 32, 3, padding=1, **place),  # (B, 32, H, W)
            nn.GELU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1, **place),  # (B, 64, H/2, W/2)
            nn.GroupNorm(1, 64, **place),
            nn.GELU(),
            nn.Conv2d(64, 64, 3, padding=1, **place),
            nn.GroupNorm(1, 64, **place),
            nn.GELU(),
            nn.Conv2d(64, embed_dim, 3, stride=2, padding=1, bias=bias, **place),  # (B, D, H/4, W/4)
        )

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Pixels per token along one side; timm asks for it when it makes a feature pyramid."""
        return 4 if as_scalar else (4, 4)

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Tokens along height and width for an image of ``img_size`` pixels; timm's `forward_intermediates` asks."""
        return img_size[0] // 4, img_size[1] // 4

    def forward(self, x: Tensor) -> Tensor:
        """Turn images ``(B, in_chans, H, W)`` into tokens ``(B, H*W/16, embed_dim)``, row by row."""
        if x.shape[-2:] != self.img_size:
            raise ValueError(
                f"Images are {x.shape[-2]}x{x.shape[-1]} but the model was made for {self.img_size[0]}x"
                f"{self.img_size[1]}; resize them, or pass `img_size` to `timm.create_model`."
            )
        return cast(Tensor, self.net(x)).flatten(2).transpose(1, 2)


default_cfgs = generate_default_cfgs(
    {
        "vit_nano_omniglot": {
            "file": str(WEIGHTS),
            "input_size": (1, 16, 16),
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": (0.18,),
            "std": (0.29,),
            "num_classes": 0,
            "classifier": "head",
            "license": "mit",
            "origin_url": "https://github.com/brendenlake/omniglot",
        }
    }
)


def fit_weights(state: dict[str, Tensor], model: VisionTransformer) -> dict[str, Tensor]:
    """Fit stored weights to a model of another ``img_size`` (position embedding) or ``in_chans`` (first convolution).

    A grey image repeated over the channels gives the features that the grey model gives.

    Raises:
        ValueError: If a tensor of the model, the head aside, is missing; timm would leave it random without a word.
    """
    missing = [name for name in model.state_dict() if name not in state and not name.startswith("head.")]
    if missing:
        raise ValueError(
            f"The weights file has {len(state)} tensors but not `{missing[0]}` ({len(missing)} are missing); "
            "give a file made by pretraining/pretrain_nano_vit.py."
        )
    first = "patch_embed.net.0.weight"  # (32, 1, 3, 3)
    if first in state and state[first].shape[1] == 1:
        channels = model.get_parameter(first).shape[1]
        state[first] = state[first].float().repeat(1, channels, 1, 1) / channels
    fitted: dict[str, Tensor] = checkpoint_filter_fn(state, model)
    return fitted


@register_model  # type: ignore[untyped-decorator, unused-ignore]
def vit_nano_omniglot(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Build the nano ViT; ``kwargs`` are those of timm's `VisionTransformer`.

    Input ``(B, 1, 16, 16)``, features ``(B, 128)`` (class token after the final norm), or ``(B, num_classes)`` with a
    freshly drawn head. No dropout anywhere.

    Raises:
        FileNotFoundError: If ``pretrained`` and the weights file is not there.
    """
    overlay = kwargs.get("pretrained_cfg_overlay") or {}
    path = Path(overlay.get("file", WEIGHTS))
    if pretrained and not path.is_file():
        raise FileNotFoundError(
            f"The weights of `vit_nano_omniglot` were expected at {path} but there is no such file; reinstall "
            "lightning-cl (the file is part of its wheel), make it with pretraining/pretrain_nano_vit.py, or "
            "pass pretrained=False for random weights."
        )
    shape = {"img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 128, "depth": 6, "num_heads": 4}
    model: VisionTransformer = build_model_with_cfg(
        VisionTransformer,
        "vit_nano_omniglot",
        pretrained,
        pretrained_filter_fn=fit_weights,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **{**shape, "mlp_ratio": 2.0, "embed_layer": ConvStem, **kwargs},
    )
    return model
