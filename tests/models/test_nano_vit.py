from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestCentroid
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.models import vit_nano_omniglot
from lightning_cl.models.nano_vit import WEIGHTS, ConvStem


def nano(pretrained: bool = True, **kwargs: object) -> VisionTransformer:
    return timm.create_model("vit_nano_omniglot", pretrained=pretrained, **kwargs).eval()


@torch.no_grad()
def digit_features(model: VisionTransformer) -> Tensor:
    """What a user would do who has read the model's own configuration and nothing else."""
    cfg = model.pretrained_cfg
    ink = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    ink = torch.nn.functional.interpolate(ink, cfg["input_size"][1:], mode=cfg["interpolation"])
    return torch.nn.functional.normalize(model((ink - cfg["mean"][0]) / cfg["std"][0]), dim=1)


def digit_accuracy(model: VisionTransformer) -> float:
    labels = load_digits().target
    train, test = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    features = digit_features(model).numpy()
    return float(NearestCentroid().fit(features[train], labels[train]).score(features[test], labels[test]))


def test_it_is_a_plain_small_vision_transformer():
    model = nano(pretrained=False)
    assert type(model) is VisionTransformer  # methods recognise timm's class, not a look-alike
    assert sum(p.numel() for p in model.parameters()) <= 2_000_000
    assert model.has_class_token
    assert model.global_pool == "token"
    assert (len(model.blocks), model.embed_dim, model.blocks[0].attn.num_heads) == (6, 128, 4)
    assert isinstance(model.norm, torch.nn.LayerNorm)
    assert not any(m.p for m in model.modules() if isinstance(m, torch.nn.Dropout))
    assert not list(model.buffers())  # no running statistics that a frozen backbone would let drift


def test_timm_knows_it_and_its_input():
    assert "vit_nano_omniglot" in timm.list_models("vit_nano*", pretrained=True)
    assert timm.data.resolve_data_config(model=nano(pretrained=False))["input_size"] == (1, 16, 16)


def test_without_classes_it_gives_the_class_token():
    model, images = nano(), torch.rand(3, 1, 16, 16)
    assert model.forward_features(images).shape == (3, 17, 128)
    assert_close(model(images), model.forward_features(images)[:, 0])
    assert nano(num_classes=10)(images).shape == (3, 10)


def test_intermediate_features_work():
    tokens = nano().forward_intermediates(torch.rand(2, 1, 16, 16), intermediates_only=True)
    assert [tuple(t.shape) for t in tokens] == [(2, 128, 4, 4)] * 6


def test_weights_file_is_small_half_precision_and_complete():
    stored = load_file(WEIGHTS)
    assert WEIGHTS.stat().st_size <= 4 * 2**20
    assert {w.dtype for w in stored.values()} == {torch.float16}
    assert stored.keys() == nano(pretrained=False).state_dict().keys()


def test_pretrained_weights_are_the_stored_ones_in_float32():
    stored, untrained = load_file(WEIGHTS), nano(pretrained=False).state_dict()
    for name, weight in nano(num_classes=10).state_dict().items():
        if not name.startswith("head."):
            assert weight.dtype == torch.float32
            assert weight.isfinite().all()
            assert_close(weight, stored[name].float(), rtol=0, atol=0)
            assert not torch.equal(weight, untrained[name]), name


def test_digits_are_separable_without_any_training():
    assert digit_accuracy(nano()) >= 0.93  # measured 0.68 to 0.76 with random weights, eight seeds


def test_random_weights_do_not_pass_the_digits_bar():
    torch.manual_seed(0)
    assert digit_accuracy(nano(pretrained=False)) < 0.85


def test_grey_repeated_over_channels_gives_the_same_features():
    images = torch.rand(2, 1, 16, 16)
    assert_close(nano(in_chans=3)(images.expand(-1, 3, -1, -1)), nano()(images), rtol=1e-3, atol=1e-4)


def test_larger_images_get_a_resized_position_embedding():
    model = nano(img_size=32)
    assert model.pos_embed.shape == (1, 65, 128)
    assert model(torch.rand(2, 1, 32, 32)).isfinite().all()


def test_missing_weights_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected at .*gone\.safetensors.*pretrained=False"):
        nano(pretrained_cfg_overlay={"file": str(tmp_path / "gone.safetensors")})
    assert vit_nano_omniglot(pretrained_cfg_overlay={"file": str(tmp_path / "gone.safetensors")}) is not None


def test_incomplete_weights_are_refused(tmp_path):
    stored = load_file(WEIGHTS)
    del stored["blocks.3.attn.qkv.bias"]
    save_file(stored, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"not `blocks\.3\.attn\.qkv\.bias` \(1 are missing\)"):
        nano(num_classes=10, pretrained_cfg_overlay={"file": str(tmp_path / "part.safetensors")})


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"img_size": 18}, "multiple of 4"),
        ({"img_size": (16, 30)}, "multiple of 4"),
        ({"patch_size": 2}, "`patch_size` is 2"),
    ],
)
def test_impossible_shapes_are_refused(kwargs, words):
    with pytest.raises(ValueError, match=words):
        ConvStem(**kwargs)


def test_wrong_image_size_is_named():
    with pytest.raises(ValueError, match="Images are 28x28 but the model was made for 16x16"):
        nano()(torch.rand(1, 1, 28, 28))
