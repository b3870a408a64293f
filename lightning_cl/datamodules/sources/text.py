"""Texts with a tokenizer: of a Hugging Face data set, or of plain lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

from lightning_cl.datamodules.collate import Tokenized
from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.sources.hugging_face import load, two_splits
from lightning_cl.datamodules.sources.label_map import LabelMap, check_label_map, map_labels
from lightning_cl.datamodules.sources.labels import ClassNames
from lightning_cl.datamodules.sources.targets import column, is_hugging_face, label_column

Targets = Literal["class", "tokens"]
_TEXT_KEYS = ("text", "sentence", "content", "query", "document", "review")


class Texts(NamedTuple):
    """One split.

    Attributes:
        texts: ``(N,)``, any sequence.
        labels: ``(N,)`` integers or names; ``None``: there are none.
        domains: ``(N,)``, as ``labels``.
        names: Of the classes, as the data set knows them.
    """

    texts: Any
    labels: Any = None
    domains: Any = None
    names: Any = None


def text_column(dataset: Any, key: str | None) -> str:
    """Name of the column of a ``datasets.Dataset`` that holds the texts.

    Raises:
        ValueError: If there is no such column, or several and none with a usual name.
    """
    features = dataset.features
    texts = [name for name, kind in features.items() if getattr(kind, "dtype", None) in ("string", "large_string")]
    usual = [name for name in _TEXT_KEYS if name in texts][:1]
    found = [key] if key is not None else usual or texts
    if len(found) != 1 or found[0] not in features:
        raise ValueError(
            f"the columns of the data set are {', '.join(map(repr, features))}, of which "
            f"{', '.join(map(repr, texts)) or 'none'} hold text; say which with `text_key=`."
        )
    return found[0]


class TextSource(Source):
    """Texts of a Hugging Face data set or of plain lists, tokenised batch by batch where batches are made.

    A batch is what the tokenizer gives, padded to its longest text (``input_ids``, ``attention_mask``, ...), with
    ``labels``; without a tokenizer it is ``{"text": [...], "label": ids}``. Worker processes tokenise, too.

    Args:
        data: A ``DatasetDict``, a folder that ``save_to_disk`` wrote, a name on the Hub, or a pair (train, test) of
            ``datasets.Dataset``, of ``(texts, labels)``, or of texts alone.
        tokenizer: Of ``transformers``, or a name or folder that ``AutoTokenizer`` opens; ``None``: texts stay texts.
        max_length: Longer texts are cut to so many tokens; ``None``: not cut.
        targets: ``"class"``, or ``"tokens"`` for a language model: ``labels`` are the token ids, -100 at padding.
        classes: ``False``: texts have no class, so they come by domain or in order.
        text_key: Column of the texts; ``None``: the one of text, or ``text``, ``sentence`` or the like.
        label_key: Column of the labels; ``None``: as in :class:`HuggingFaceSource`.
        domain_key: Column of the domains (integers or names); ``None``: ``train_domains``.
        class_names: As in :class:`DatasetSource`.
        train_domains: ``(N_train,)`` integers from 0 or names; ``None``: there are no domains.
        test_domains: ``(N_test,)``, as ``train_domains``.
        domain_names: One per domain, in their order; ``None``: sorted names, or the numbers.
        label_map: As in :class:`DatasetSource`.
        collate_fn: Makes a batch of a list of ``{"text": ..., "label": ...}`` in place of the tokenizer.
        train: Name of the training split.
        test: Name of the test split; ``None``: as in :class:`HuggingFaceSource`.
        options: Of ``load_dataset``, if ``data`` is a name.

    Raises:
        ValueError: If ``targets`` is unknown or asks for tokens without a tokenizer, or ``max_length`` is below 1; in
            :meth:`setup`, if columns are missing or ambiguous, labels are not one for each text, or as in
            :class:`DatasetSource`.
        ImportError: If ``tokenizer`` or ``data`` is a name and its package is not installed.
    """

    def __init__(
        self,
        data: Any,
        tokenizer: Any = None,
        max_length: int | None = None,
        targets: Targets = "class",
        classes: bool = True,
        text_key: str | None = None,
        label_key: str | None = None,
        domain_key: str | None = None,
        class_names: ClassNames | None = None,
        train_domains: Any = None,
        test_domains: Any = None,
        domain_names: Sequence[str] | None = None,
        label_map: LabelMap | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        train: str = "train",
        test: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        check_label_map(label_map)
        _check_arguments(targets, tokenizer, max_length, collate_fn)
        self._given, self._splits, self._options = data, (train, test), options or {}
        self.tokenizer, self.max_length, self.targets_are = tokenizer, max_length, targets
        self.classes, self.label_map, self._names, self._domain_names = classes, label_map, class_names, domain_names
        self.text_key, self.label_key, self.domain_key = text_key, label_key, domain_key
        self._domains, self._own_collate = (train_domains, test_domains), collate_fn

    def prepare(self) -> None:
        """Download what a name on the Hub stands for."""
        if isinstance(self._given, (str, os.PathLike)):
            load(os.fspath(self._given), self._options)

    def _open(self) -> None:
        train, test = (self._texts(part, split) for part, split in zip(self._parts(), ("train", "test"), strict=True))
        self._data = {"train": train.texts, "test": test.texts}
        tokenised = partial(Tokenized, max_length=self.max_length, targets=self.targets_are)
        made = None if self.tokenizer is None else tokenised(opened(self.tokenizer))
        self.collate_fn = self._own_collate or made
        facts: dict[str, Any] = {"train_domains": None, "test_domains": None}
        domains = [train.domains, test.domains] if self.domain_key is not None else list(self._domains)
        if all(ids is not None for ids in domains):
            mapped = map_labels(domains[0], domains[1], self._domain_names, what=("train_domains", "test_domains"))
            facts = {"train_domains": mapped.train, "test_domains": mapped.test, "domain_names": mapped.names}
        elif any(ids is not None for ids in domains):
            facts = dict(zip(facts, domains, strict=True))  # which is said to be a mistake
        if not self.classes:
            return self._describe_without_classes(len(train.texts), len(test.texts), **facts)
        names = self._names if self._names is not None else train.names
        labels = map_labels(train.labels, test.labels, names, self.label_map)
        return self._describe(labels.train, labels.test, labels.names, **facts)

    def _parts(self) -> tuple[Any, Any]:
        """What was given, by split."""
        data = self._given
        if isinstance(data, (str, os.PathLike)):
            data = load(os.fspath(data), self._options)
        pair = isinstance(data, (tuple, list)) and len(data) == 2
        if pair and not any(is_hugging_face(part) for part in data):
            return data[0], data[1]
        return two_splits(data, *self._splits)

    def _texts(self, part: Any, split: str) -> Texts:
        if is_hugging_face(part):
            return self._columns(part)
        texts, labels = part, None
        if isinstance(part, (tuple, list)) and len(part) == 2 and not isinstance(part[0], str):
            texts, labels = part
        if isinstance(texts, (str, Mapping)) or not hasattr(texts, "__len__"):
            raise ValueError(
                f"the {split} texts are a {type(texts).__name__}; give a list of texts, or (texts, labels)."
            )
        if self.classes and labels is None:
            raise ValueError(
                f"the {split} texts come without labels; give (texts, labels), or `classes=False` if they have none."
            )
        if labels is not None and len(labels) != len(texts):
            raise ValueError(f"there are {len(texts)} {split} texts but {len(labels)} labels; give one for each.")
        return Texts(texts, labels)

    def _columns(self, data: Any) -> Texts:
        # Only this column is read, and no format or transform that was set on the data set is in the way.
        key = text_column(data, self.text_key)
        texts = data.with_format(None).select_columns([key])[key]
        domains = None if self.domain_key is None else column(data, label_column(data, self.domain_key, "domain_key"))
        if not self.classes:
            return Texts(texts, None, domains)
        label = label_column(data, self.label_key, "label_key")
        return Texts(texts, column(data, label), domains, getattr(data.features[label], "names", None))

    def item(self, split: Split, index: int) -> Any:
        """``{"text": str, "label": int}``, without the label where there are no classes."""
        text = str(self._data[split][int(index)])
        if not self.classes:
            return {"text": text}
        return {"text": text, "label": int((self.train_labels if split == "train" else self.test_labels)[index])}


def _check_arguments(targets: str, tokenizer: Any, max_length: int | None, collate_fn: Any) -> None:
    if targets not in get_args(Targets):
        raise ValueError(f"`targets` is {targets!r}; expected 'class' or 'tokens'.")
    if targets == "tokens" and tokenizer is None and collate_fn is None:
        raise ValueError("`targets='tokens'` asks for token ids, but there is no tokenizer; pass `tokenizer=`.")
    if max_length is not None and max_length < 1:
        raise ValueError(f"`max_length` is {max_length}; give a number of tokens of at least 1.")


def opened(tokenizer: Any) -> Any:
    """A tokenizer, by its name or folder where it is none yet.

    Raises:
        ImportError: If it is a name and ``transformers`` is not installed.
        ValueError: If there is no tokenizer of this name, or it is no function of texts.
    """
    if not isinstance(tokenizer, (str, os.PathLike)):
        if not callable(tokenizer):
            raise ValueError(
                f"`tokenizer` is {type(tokenizer).__name__}; expected one of transformers, or a name or folder."
            )
        return tokenizer
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError(
            f"the tokenizer {str(tokenizer)!r} is opened by transformers; `pip install 'lightning_cl[text]'`."
        ) from error
    try:
        return AutoTokenizer.from_pretrained(os.fspath(tokenizer))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the tokenizer {str(tokenizer)!r} cannot be opened ({str(error).partition(chr(10))[0]}); give a folder "
            "that `tokenizer.save_pretrained` wrote, or a name on the Hub."
        ) from error
