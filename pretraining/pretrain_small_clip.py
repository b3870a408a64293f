"""Pre-train a small open_clip model on images with class names, on one CPU thread, for trying CLIP methods offline.

    python pretraining/pretrain_small_clip.py --data tiny_imagenet.npz cifar100.npz:60 --out small_clip

A file holds ``train_x`` (N, H, W, 3) uint8, or ``train_jpeg`` with ``train_off``; ``train_y``; and ``class_names``.
``:60`` takes its first 60 classes only, so that the others stay new for few-shot sessions. Captions are class names in
a handful of templates; an image is contrasted with the names in its batch. With ``--vision-weights`` (a timm
``vit_tiny_patch16_224`` file) the image tower starts from them, stays frozen, and is run once per image; without, both
towers are trained from scratch. Written are ``open_clip_config.json`` and ``open_clip_model.safetensors``:

    CLIPClassifier(model="small_clip/open_clip_config.json", pretrained="small_clip/open_clip_model.safetensors")

What to expect: a text tower that has read a few hundred names knows the words in them and no others. Names that it has
never read begin near chance, which is not so with a CLIP that was trained on millions of captions.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

TEMPLATES = ("{}.", "a photo of a {}.", "a picture of the {}.", "a small photo of a {}.", "a {} in a photo.", "the {}.")
MEAN = STD = (0.5, 0.5, 0.5)
TEXT = {"context_length": 32, "vocab_size": 49408, "width": 192, "heads": 3, "layers": 4}
#: As a timm ViT-Tiny, which has no norm before its blocks; see `tower_from_timm`.
TINY = {"patch_size": 16, "width": 192, "layers": 12, "head_width": 64, "no_ln_pre": True, "norm_kwargs": {"eps": 1e-6}}
SCRATCH = {"image_size": 64, "patch_size": 8, "width": 192, "layers": 6, "head_width": 64}


def read(path: str, per_class: int) -> tuple[list[Image.Image], list[str]]:
    """Images and their class names; ``path`` may end in ``:N`` for the first N classes."""
    file, _, first = path.partition(":")
    data = np.load(file)
    names = [str(name).replace("_", " ") for name in data["class_names"]]
    labels = data["train_y"].astype(int)
    chosen = np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(int(first or len(names)))])
    if "train_x" in data:
        pixels = data["train_x"]
        images = [Image.fromarray(pixels[i]) for i in chosen]
    else:
        jpeg, at = data["train_jpeg"], data["train_off"]
        images = [Image.open(io.BytesIO(jpeg[at[i] : at[i + 1]])) for i in chosen]
    return [image.convert("RGB") for image in images], [names[labels[i]] for i in chosen]


def pixels(image: Image.Image, size: int, augment: bool) -> Tensor:
    """(3, size, size) in [-1, 1]; a random crop of at least 60 % of the area and a flip if ``augment``."""
    if augment:
        side = min(image.size) * math.sqrt(0.6 + 0.4 * torch.rand(()).item())
        left, top = (torch.rand(()).item() * (length - side) for length in image.size)
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(()) < 0.5 else image
    else:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def tower_from_timm(state: dict[str, Tensor], grid: int) -> dict[str, Tensor]:
    """Weights of a timm ViT by the names of open_clip's: the same function, in another notation.

    The bias of the patch embedding moves into the positional embedding, which is resized to ``grid`` x ``grid``.
    """
    state = {name: value.float() for name, value in state.items()}
    position = state["pos_embed"][0]  # (1 + 14 * 14, D)
    old = int(math.sqrt(len(position) - 1))
    patches = position[1:].T.reshape(1, -1, old, old)
    patches = F.interpolate(patches, (grid, grid), mode="bicubic", antialias=True, align_corners=False)
    patches = patches.flatten(2)[0].T + state["patch_embed.proj.bias"]
    mapped = {
        "class_embedding": state["cls_token"].flatten(),
        "positional_embedding": torch.cat([position[:1], patches]),
        "conv1.weight": state["patch_embed.proj.weight"],
        "ln_post.weight": state["norm.weight"],
        "ln_post.bias": state["norm.bias"],
    }
    names = {"norm1.": "ln_1.", "attn.qkv.": "attn.in_proj_", "attn.proj.": "attn.out_proj.", "norm2.": "ln_2."}
    names |= {"mlp.fc1.": "mlp.c_fc.", "mlp.fc2.": "mlp.c_proj."}
    for name, value in state.items():
        if name.startswith("blocks."):
            _, index, part = name.split(".", 2)
            for timm_name, clip_name in names.items():
                part = part.replace(timm_name, clip_name)
            mapped[f"transformer.resblocks.{index}.{part}"] = value
    return mapped


@torch.no_grad()
def features_before_projection(model: Any, images: list[Image.Image], size: int) -> Tensor:
    """(N, D) float: each image once, every second one flipped."""
    visual, found, start = model.visual, [], time.perf_counter()
    for first in range(0, len(images), 64):
        batch = torch.stack([pixels(image, size, augment=False) for image in images[first : first + 64]])
        batch[1::2] = batch[1::2].flip(3)
        found.append(visual._pool(visual.transformer(visual._embeds(batch)))[0])
        if first // 64 % 20 == 0:
            print(f"{first} of {len(images)} images, {(time.perf_counter() - start) / 60:.1f} min", flush=True)
    return torch.cat(found)


def contrast(model: Any, features: Tensor, names: list[str], tokenizer: Any) -> tuple[Tensor, float]:
    """Cross-entropy of each image over the names in the batch, each in a random template; and the accuracy."""
    known = list(dict.fromkeys(names))
    templates = [TEMPLATES[int(i)] for i in torch.randint(len(TEMPLATES), (len(known),))]
    tokens = tokenizer([template.format(name) for template, name in zip(templates, known, strict=True)])
    tokens = tokens[:, : int(tokens.argmax(1).max()) + 1]  # what comes later cannot reach the end token
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    texts = x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection
    logits = model.logit_scale.exp().clamp(max=100) * F.normalize(features, dim=1) @ F.normalize(texts, dim=1).T
    target = torch.tensor([known.index(name) for name in names])
    return F.cross_entropy(logits, target, label_smoothing=0.05), (logits.argmax(1) == target).float().mean().item()


def pretrain(model: Any, images: list[Image.Image], names: list[str], frozen: bool, args: argparse.Namespace) -> None:
    size, tokenizer = model.visual.image_size[0], open_clip.SimpleTokenizer(context_length=TEXT["context_length"])
    if frozen:
        model.visual.requires_grad_(False)
        model.visual.proj.requires_grad_(True)
        known = features_before_projection(model, images, size)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.lr, weight_decay=0.1, betas=(0.9, 0.98))
    steps, start = max(1, len(images) // args.batch_size), time.perf_counter()
    total = args.epochs * steps
    for epoch in range(args.epochs):
        order, loss_sum, hits = torch.randperm(len(images)), 0.0, 0.0
        for step in range(steps):
            at = epoch * steps + step
            for group in optimizer.param_groups:
                group["lr"] = args.lr * min((at + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * at / total))
            batch = order[step * args.batch_size : (step + 1) * args.batch_size].tolist()
            if frozen:
                features = known[batch] @ model.visual.proj
            else:
                features = model.encode_image(torch.stack([pixels(images[i], size, augment=True) for i in batch]))
            loss, accuracy = contrast(model, features, [names[i] for i in batch], tokenizer)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            loss_sum, hits = loss_sum + loss.item(), hits + accuracy
        minutes = (time.perf_counter() - start) / 60
        print(f"epoch {epoch}: loss {loss_sum / steps:.3f}, accuracy {hits / steps:.3f}, {minutes:.1f} min", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="npz files, each with :N for its first N classes only")
    parser.add_argument("--out", default="small_clip", help="folder")
    parser.add_argument("--vision-weights", help="safetensors of timm's vit_tiny_patch16_224")
    parser.add_argument("--image-size", type=int, default=112, help="with --vision-weights; from scratch it is 64")
    parser.add_argument("--per-class", type=int, default=40, help="training images of each class, at most")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    vision = {**TINY, "image_size": args.image_size} if args.vision_weights else SCRATCH
    config = {"embed_dim": 256, "vision_cfg": vision, "text_cfg": TEXT}
    model = open_clip.CLIP(**config)
    if args.vision_weights:
        grid = args.image_size // 16
        mapped = tower_from_timm(load_file(args.vision_weights), grid)
        model.visual.load_state_dict({"proj": model.visual.proj.detach(), **mapped})
    parts = [read(path, args.per_class) for path in args.data]
    images, names = ([item for part in parts for item in part[i]] for i in (0, 1))
    print(f"{len(images)} images, {len(set(names))} names", flush=True)
    pretrain(model, images, names, bool(args.vision_weights), args)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    (out / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2)
    )
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, out / "open_clip_model.safetensors", metadata={"names": json.dumps(sorted(set(names)))})
    print(f"Saved {sum(value.numel() for value in weights.values()):,} numbers to {out}")


if __name__ == "__main__":
    main()
