"""Zero-shot CLIP as a classifier: class names are the head. For the frozen reference, and for methods on CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.models.classifier import Classifier, OptimizerName, ScheduleName
from lightning_cl.models.clip_loading import ModelSpec, build_clip, image_statistics, tokenizer_for
from lightning_cl.namespace import LRSchedulerCallable, OptimizerCallable
from lightning_cl.nn.class_texts import TextHead, class_names, clip_tokens, ensemble, fill_templates
from lightning_cl.nn.clip_towers import NOT_TEXT, check_text_tower, encode_texts, text_tower
from lightning_cl.nn.parameter_versions import parameter_versions


class CLIPClassifier(Classifier):
    """Any open_clip model as a zero-shot classifier; there is nothing continual in it.

    The model is ``net``; the head is ``head``, a cosine head whose rows are the text features of the class names, the
    templates of a class averaged and brought back to unit length (Radford et al., arXiv:2103.00020, section 3.1.4).
    With frozen towers they are computed once. It logs what :class:`ImageClassifier` logs.

    With ``train="none"`` a fit only evaluates, the zero-shot reference of a stream, unless a method brings parameters
    of its own, such as :class:`~lightning_cl.callbacks.CPECLIP`.

    Args:
        model: A name that open_clip knows (with the weights of OpenAI one that ends in ``-quickgelu``),
            ``"local-dir:..."``, ``"hf-hub:..."``, the path of a JSON configuration, or the configuration itself.
        pretrained: A tag of open_clip or the path of a file with weights; ``None``: random weights. A tag that cannot
            be had is an error, never random weights.
        num_classes: Outputs of the head. The command line takes it from the data; ``None``: one of each class name.
        class_names: One name of each class, in the order of the labels; ``None``: those of the stream.
        templates: What is read of a class: the name takes the place of ``{}``.
        train: ``"none"``, or ``"all"``: both towers and the logit scale, with the texts read anew in each step.
        normalize: Images are pixels in [0, 1] and are brought to the mean and deviation that the model was trained
            with, so give the source ``normalize=False``. ``False`` takes images as they are.
        optimizer: See :class:`ImageClassifier`; CPE-CLIP was published with ``"sgd"``.
        lr: Its learning rate; published: 0.001.
        weight_decay: Of an optimiser given by name; published: 1e-5.
        lr_schedule: See :class:`ImageClassifier`; published: ``"cpe_clip"``.
        batch_keys: Names of image and label where batches are dictionaries.

    Raises:
        ValueError: For an unknown model or tag, weights that cannot be had, class names that are missing or not
            different, templates without a place for the name, and what :class:`ImageClassifier` refuses.
    """

    #: ``setup`` looks at what the methods left to train.
    attach_before_setup = True

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        model: ModelSpec = "ViT-B-16-quickgelu",
        pretrained: str | None = "openai",
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        templates: Sequence[str] = ("a photo of a {}.",),
        train: Literal["none", "all"] = "none",
        normalize: bool = True,
        optimizer: OptimizerName | OptimizerCallable = "sgd",
        lr: float | None = None,
        weight_decay: float | None = None,
        lr_schedule: ScheduleName | LRSchedulerCallable = "constant",
        batch_keys: tuple[str, str] = ("image", "label"),
    ) -> None:
        if num_classes is None and class_names is not None:
            num_classes = len(class_names)
        super().__init__(num_classes, optimizer, lr, weight_decay, lr_schedule, batch_keys)
        num_classes = self.num_classes_of_stream() if num_classes is None else num_classes
        if train not in ("none", "all"):
            raise ValueError(f'`train` is {train!r}; give "none" or "all".')
        fill_templates(["name"], templates)
        self.templates, self.normalize, self.model = tuple(templates), normalize, model
        self.net, self.model_config = build_clip(model, pretrained)
        self.net.requires_grad_(train == "all")
        self.head = TextHead(int(self.model_config["embed_dim"]), num_classes)
        mean, std = image_statistics(self.net)
        self.register_buffer("image_mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("image_std", torch.tensor(std)[:, None, None], persistent=False)
        self._tokens: Tensor | None = None
        self._trains_all, self._only_evaluates, self._causal = train == "all", False, False
        if class_names is not None:
            self.set_class_names(class_names)

    # ------------------------------------------------------------------ class names

    def set_class_names(self, names: Sequence[str]) -> None:
        """Let these be the classes, in the order of the labels.

        Raises:
            ValueError: If they are not one name of each class, all different.
        """
        texts = fill_templates(class_names(names, self.head.out_features), self.templates)
        self.head.made_from = None
        self._causal = self._is_causal()  # asked once, since it looks at the mask
        if self._causal:
            self._tokens = clip_tokens(texts, text_tower(self.net).context_length)
        else:
            self._tokens = tokenizer_for(self.model, self.model_config)(texts)

    def _is_causal(self) -> bool:
        try:
            check_text_tower(self.net)
        except ValueError:
            return False
        return self.model_config["text_cfg"].get("hf_tokenizer_name") is None

    def setup(self, stage: str) -> None:
        """Read the names of the stream's classes, and see whether there is anything to train."""
        if not self.head.replaced and self._names_known():
            self._update_rows()
        scale = self.net.logit_scale
        if not self._trains_all:
            self._only_evaluates = not any(p.requires_grad for p in self.parameters() if p is not scale)
            scale.requires_grad_(self._only_evaluates)  # several processes need something to agree on; its rate is 0

    def _names_known(self) -> bool:
        """Whether there are class names: given, or of the stream of this run, or of the run that was restored."""
        if self._tokens is None:
            known = getattr(self, "continual", None) or (self._stream if self._trainer is not None else None)
            info = getattr(known, "info", None)
            if info is not None:
                self.set_class_names(info.class_names)
        return self._tokens is not None

    def _text_features(self) -> Tensor:
        """``(C, D)`` unit rows, from all classes and templates."""
        assert self._tokens is not None
        tokens = self._tokens.to(self.head.weight.device)
        if self._causal:
            features = encode_texts(self.net, tokens)
        else:
            features = F.normalize(self.net.encode_text(tokens).float(), dim=-1)
        return ensemble(features, len(self.templates))

    def _update_rows(self) -> None:
        """Read the texts again if the text tower is not what it was."""
        if not self._names_known():
            raise ValueError(
                "the class names are not known, and they are what CLIP classifies by; give `class_names=[...]`, or a "
                "stream (`trainer.fit(model, datamodule=stream)`)."
            )
        now = parameter_versions(text_tower(self.net), but=NOT_TEXT)
        if now != self.head.made_from:
            with torch.inference_mode(False), torch.no_grad():
                self.head.fill(self._text_features(), now)

    # ------------------------------------------------------------------ steps

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` images (grey ones are repeated) to ``(B, num_classes)`` logits."""
        features = F.normalize(self.net.encode_image(self._prepared(images)), dim=-1)
        scale, rows = self.net.logit_scale.exp(), None
        if not self.head.replaced:
            if torch.is_grad_enabled() and self._trains_text() and self._names_known():
                rows = self._text_features()
            else:
                self._update_rows()
        logits: Tensor = self.head(features, rows, scale)
        return logits

    def _prepared(self, images: Tensor) -> Tensor:
        size = self.net.visual.image_size
        expected = (size, size) if isinstance(size, int) else tuple(size)
        if tuple(images.shape[-2:]) != expected:
            raise ValueError(
                f"the images have {images.shape[-2]} x {images.shape[-1]} pixels, but the model reads "
                f"{expected[0]} x {expected[1]}; let the source resize them with `image_size={expected[0]}`."
            )
        images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        return (images - self.image_mean) / self.image_std if self.normalize else images

    def _trains_text(self) -> bool:
        return any(p.requires_grad for p in text_tower(self.net).transformer.parameters())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Mean cross-entropy of the batch; a zero that moves nothing where nothing is trained."""
        if self._only_evaluates:
            zero: Tensor = self.net.logit_scale.sum() * 0.0
            return zero
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        """The optimiser and its schedule."""
        if self._only_evaluates:
            return torch.optim.SGD([self.net.logit_scale], lr=0.0)
        return super().configure_optimizers()
