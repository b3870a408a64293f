"""Pre-train the nano ViT that ships with lightning_cl: all 1,623 Omniglot characters, 16x16, one CPU core.

    python pretraining/pretrain_nano_vit.py --root data                    # downloads Omniglot (MIT) with torchvision
    python pretraining/pretrain_nano_vit.py --data omniglot28.npz          # the same drawings, packed as 28x28 arrays

The number of epochs is fixed and the last weights are the ones saved. The accuracy on scikit-learn's digits that is
printed on the way is only watched: no choice depends on it.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

import lightning_cl.models  # noqa: F401  (registers the model with timm)

MEAN, STD = 0.18, 0.29  # of the augmented drawings, rounded; the model's `pretrained_cfg` says the same


def omniglot_from_npz(path: str) -> tuple[Tensor, Tensor]:
    """Drawings (N, 1, 28, 28) in [0, 1] with bright ink, and class numbers (N,)."""
    data = np.load(path)
    images = np.concatenate([data["train_x"], data["test_x"]])
    labels = np.concatenate([data["train_y"], data["test_y"]])
    return torch.from_numpy(images)[:, None] / 255, torch.from_numpy(labels.astype(np.int64))


def omniglot_from_torchvision(root: str) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import Omniglot
    from torchvision.transforms.v2.functional import pil_to_tensor

    images, labels, first = [], [], 0
    for background in (True, False):  # 964 characters, then the other 659
        split = Omniglot(root, background=background, download=True)
        for drawing, label in split:
            ink = 1 - pil_to_tensor(drawing).float() / 255  # (1, 105, 105); the files are black on white
            images.append(F.interpolate(ink[None], size=28, mode="area")[0])
            labels.append(first + label)
        first = max(labels) + 1
    return torch.stack(images), torch.tensor(labels)


def augment(images: Tensor) -> Tensor:
    """Draw each (B, 1, 28, 28) image anew: other place, size, slant, stroke width and sharpness; (B, 1, 16, 16)."""
    b = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(b).uniform_(low, high)

    def strength() -> Tensor:  # 0 for half of the images
        return uniform(-1.0, 1.0).clamp(min=0).view(b, 1, 1, 1)

    angle, sx, sy = uniform(-0.25, 0.25), uniform(0.8, 1.6), uniform(0.8, 1.6)  # radians; output over input size
    cos, sin = torch.cos(angle), torch.sin(angle)
    shear, dx, dy = uniform(-0.25, 0.25), uniform(-0.2, 0.2), uniform(-0.2, 0.2)  # 2 is the whole image
    # output coordinates to input coordinates: scale^-1 @ rotation @ shear, then shift
    rows = [cos / sx, (cos * shear - sin) / sx, dx, sin / sy, (sin * shear + cos) / sy, dy]
    theta = torch.stack(rows, dim=1).view(b, 2, 3)
    grid = F.affine_grid(theta, [b, 1, 32, 32], align_corners=False)
    fine = F.grid_sample(images, grid, align_corners=False)  # (B, 1, 32, 32)
    thick = F.max_pool2d(fine, 5, stride=1, padding=2)  # a marker instead of a pen
    fine = torch.lerp(fine, thick, strength())
    small = F.avg_pool2d(fine, 2)  # (B, 1, 16, 16)
    soft = F.interpolate(F.avg_pool2d(small, 2), size=16, mode="bilinear", align_corners=False)
    return (torch.lerp(small, soft, strength()) * uniform(0.7, 1.6).view(b, 1, 1, 1)).clamp(max=1)


@torch.no_grad()
def digits_ncm(model: torch.nn.Module) -> float:
    """Nearest-class-mean accuracy in [0, 1] of the features on held-out digits (20 %, stratified, seed 0)."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(images, size=16, mode="bilinear", align_corners=False)
    model.eval()
    features = model.forward_head(model.forward_features((images - MEAN) / STD), pre_logits=True)
    model.train()
    features, labels = F.normalize(features, dim=1), torch.tensor(digits.target)
    train, test = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    means = torch.stack([features[train][labels[train] == c].mean(0) for c in range(10)])
    predicted = (features[test] @ F.normalize(means, dim=1).T).argmax(1)
    return (predicted == labels[test]).float().mean().item()


def pretrain(images: Tensor, labels: Tensor, epochs: int, batch_size: int, lr: float) -> torch.nn.Module:
    model = timm.create_model("vit_nano_omniglot", num_classes=int(labels.max()) + 1)
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]  # biases and norms
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=True)
    steps = len(labels) // batch_size
    total, warmup, start = epochs * steps, 200, time.perf_counter()
    for epoch in range(epochs):
        order = torch.randperm(len(labels))
        loss_sum = hits = 0.0
        for step in range(steps):
            at = epoch * steps + step
            for group in optimizer.param_groups:
                group["lr"] = lr * min((at + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * at / total))
            batch = order[step * batch_size : (step + 1) * batch_size]
            logits = model((augment(images[batch]) - MEAN) / STD)
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss_sum += loss.item()
            hits += (logits.argmax(1) == labels[batch]).float().mean().item()
        watched = f", digits NCM {digits_ncm(model):.4f}" if epoch % 2 == 1 or epoch == epochs - 1 else ""
        minutes = (time.perf_counter() - start) / 60
        print(
            f"epoch {epoch}: loss {loss_sum / steps:.3f}, accuracy {hits / steps:.3f}{watched}, {minutes:.1f} min",
            flush=True,
        )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="npz file with train_x, train_y, test_x, test_y (28x28, ink 255)")
    parser.add_argument("--root", default="data", help="where torchvision keeps Omniglot if --data is not given")
    parser.add_argument("--out", default="vit_nano_omniglot.safetensors")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    images, labels = omniglot_from_npz(args.data) if args.data else omniglot_from_torchvision(args.root)
    model = pretrain(images, labels, args.epochs, args.batch_size, args.lr)
    weights = {name: w.half().contiguous() for name, w in model.state_dict().items() if not name.startswith("head.")}
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, args.out, metadata={"licence": "MIT", "trained_on": "Omniglot (Lake et al., 2015)"})
    print(f"Saved {sum(w.numel() for w in weights.values()):,} parameters to {args.out}")


if __name__ == "__main__":
    main()
