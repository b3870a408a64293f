"""Language-guided heads (LingoCL) as a drop-in callback."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

from lightning_cl.callbacks.arguments import choice
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.class_embeddings import FileTargets, OrthogonalTargets, RandomTargets, SentenceTargets, TargetProvider
from lightning_cl.mixins.base import TrainMask
from lightning_cl.mixins.language import ClassNameHead
from lightning_cl.nn.language_head import LanguageHead, Match, Similarity


@dataclass(eq=False)
class LanguageGuidedHead(ContinualMethod):
    """A classifier of class names instead of a trained one (LingoCL, Ni et al., CVPR 2024, arXiv:2403.16124).

    Each class's row is a frozen vector of its name, made once when the class arrives; only the network in front learns,
    towards targets that live in one space for all tasks. There is no head that could forget. It plugs into everything
    that trains that network: ``callbacks=[CODAPrompt(), LanguageGuidedHead(), ExperienceReplay()]``. Inference needs no
    text model; the rows are in the checkpoint.

    Args:
        targets: Where the vectors come from: ``"minilm"`` (all-MiniLM-L6-v2, needs ``lightning-cl[language]``), a file
            (``.npz``, ``.safetensors``, ``.pt``; see :class:`~lightning_cl.class_embeddings.FileTargets`), the controls
            ``"random"`` and ``"orthogonal"``, or any provider: ``OpenCLIPTargets("ViT-B-32-quickgelu", "openai")``,
            ``TensorTargets({"cat": vector, ...})``.
        match: How features and vectors of different length meet: ``"lift"`` turns the vectors into the feature space
            and keeps their angles; ``"project"`` trains a linear layer; ``"compress"`` cuts; ``"auto"``: lift where the
            features are long enough, else project.
        similarity: ``"cosine"``, or ``"dot"``, which keeps the features' length.
        scale: Of the logits: a number, ``"auto"`` (from the number of classes and how close the first names are), or
            ``"learnable"``.
        seed: Of lift and compression.

    Raises:
        ValueError: For unknown options; in ``setup``, if ``match`` does not fit the sizes; in training, if a class has
            no vector or two have the same.
        ImportError: In training, if a text model's package is missing.
    """

    state_key: ClassVar[str] = "lightning_cl.LanguageGuidedHead"
    needs_forward: ClassVar[bool] = False
    trains_head: ClassVar[bool] = False
    replaces_head: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"targets": "random"}  # longer than the features: there is a layer to train

    targets: TargetProvider | str = "minilm"
    match: Match = choice(Match, default="auto")
    similarity: Similarity = choice(Similarity, default="cosine")
    scale: float | Literal["auto", "learnable"] = "auto"
    seed: int = 0
    _: KW_ONLY
    train_mask: TrainMask = "seen"

    def __post_init__(self) -> None:
        super().__post_init__()
        scale = self.scale
        if scale not in ("auto", "learnable") if isinstance(scale, str) else scale <= 0:
            raise ValueError(f'`scale` is {scale!r}; give a number above 0, "auto" or "learnable".')

    def build(self, pl_module: Any, info: Any) -> ClassNameHead:
        """Freeze the head; the vectors of the class names answer."""
        provider = provider_of(self.targets)
        head = LanguageHead(
            info.num_classes,
            pl_module.continual_head.in_features,
            provider.dim,
            self.match,
            self.similarity,
            self.scale,
            self.seed,
        )
        return ClassNameHead(pl_module, head, provider)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values; a provider as its class and arguments."""
        return with_plain_targets(super().config())


def provider_of(targets: TargetProvider | str) -> TargetProvider:
    """The provider that a short name or a path stands for.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(targets, TargetProvider):
        return targets
    if targets == "minilm":
        return SentenceTargets()
    if targets in ("random", "orthogonal"):
        return RandomTargets() if targets == "random" else OrthogonalTargets()
    if targets.endswith((".npz", ".safetensors", ".pt", ".pth")):
        return FileTargets(targets)
    raise ValueError(
        f'`targets` is {targets!r}; give "minilm", "random", "orthogonal", the path of an .npz, .safetensors or .pt '
        "file, or a provider such as `OpenCLIPTargets(...)`."
    )


def with_plain_targets(config: dict[str, Any]) -> dict[str, Any]:
    """A method's arguments with the provider in ``targets`` as its class and arguments."""
    targets = config["targets"]
    if not isinstance(targets, TargetProvider):
        return config
    return {**config, "targets": {"class": type(targets).__name__, **targets.config()}}
