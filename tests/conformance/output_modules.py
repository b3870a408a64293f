"""Modules as people write them whose network answers with more than logits: Hugging Face's, and one with two heads."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, DatasetSource

from .modules import Case, optimizer_for
from .streams import BATCH_SIZE, IMAGE_SIZE, NUM_CLASSES, NUM_TASKS

#: 2 layers of width 32; dropout would make a run depend on how often a method asks the network.
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": NUM_CLASSES,
}
WORDS, LENGTH = 40, 10


def accuracy() -> MulticlassAccuracy:
    return MulticlassAccuracy(NUM_CLASSES, average="micro")


class Measured(LightningModule):
    """Keeps metrics as torchmetrics' documentation says."""

    def __init__(self, optimizer: str = "adamw", dropout: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.train_acc, self.val_acc = accuracy(), accuracy()

    def configure_optimizers(self) -> Any:
        return optimizer_for(self, self.hparams.optimizer)


class HuggingFaceImages(Measured):
    """The loss is made inside the model."""

    def __init__(self, optimizer: str = "adamw", dropout: float = 0.0) -> None:
        super().__init__(optimizer, dropout)
        self.model = ViTForImageClassification(ViTConfig(image_size=IMAGE_SIZE, patch_size=8, num_channels=1, **SMALL))

    def forward(self, **inputs: Tensor) -> Any:
        return self.model(**inputs)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        output = self(**batch)
        self.train_acc(output.logits, batch["labels"])
        self.log("train_loss", output.loss)
        self.log("train_acc", self.train_acc, on_step=False, on_epoch=True)
        return output.loss

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        output = self(**batch)
        self.val_acc.update(output.logits, batch["labels"])
        self.log("val_loss", output.loss)
        self.log("val_acc", self.val_acc)
        return output


class HuggingFaceTexts(Measured):
    """Takes whatever the tokenizer gives, and computes its metrics at the end of the epoch."""

    def __init__(self, optimizer: str = "adamw", dropout: float = 0.0) -> None:
        super().__init__(optimizer, dropout)
        config = BertConfig(vocab_size=WORDS, max_position_embeddings=LENGTH, **SMALL)
        self.encoder = BertForSequenceClassification(config)
        self.scores = MetricCollection({"val_acc": self.val_acc, "val_f1": MulticlassF1Score(NUM_CLASSES)})

    def forward(self, **inputs: Tensor) -> Any:
        return self.encoder(**inputs)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self(**batch)  # a dictionary with a loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.scores.update(self(**batch).logits, batch["labels"])

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.scores.compute())
        self.scores.reset()


class HuggingFaceDecoder(HuggingFaceTexts):
    """Its head answers for every token, of which it takes the last one that is no padding."""

    def __init__(self, optimizer: str = "adamw", dropout: float = 0.0) -> None:
        super().__init__(optimizer, dropout)
        ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
        shape = {name: size for name, size in SMALL.items() if "dropout" not in name}
        self.encoder = LlamaForSequenceClassification(LlamaConfig(vocab_size=WORDS, **shape, **ids))


class Outputs(NamedTuple):
    """As torchvision's GoogLeNet answers while it learns."""

    logits: Tensor
    aux_logits: Tensor


class Inception(nn.Module):
    """A convolutional network with batch norm, and another head in the middle that helps to train."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.aux = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, NUM_CLASSES))
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.fc = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(16, NUM_CLASSES))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        early = self.aux(x) if self.training else None
        logits = self.fc(self.body(x))
        return logits if early is None else Outputs(logits, early)


class TwoLosses(Measured):
    """Adds the loss of the other head, and averages its losses with a metric."""

    def __init__(self, optimizer: str = "adamw", dropout: float = 0.0) -> None:
        super().__init__(optimizer, dropout)
        self.net, self.criterion = Inception(dropout), nn.CrossEntropyLoss(label_smoothing=0.1)
        self.mean_loss = MeanMetric()

    def forward(self, images: Tensor) -> Any:
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        answer = self(images)
        heads = answer if isinstance(answer, Outputs) else (answer, answer)  # a method may keep it in eval mode
        loss, other = (self.criterion(logits, labels) for logits in heads)
        self.mean_loss.update(loss.detach())
        self.log("train_loss", self.mean_loss, on_step=False, on_epoch=True)
        return loss + 0.3 * other

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = batch
        self.val_acc(self(images), labels)
        self.log("val_acc", self.val_acc, on_epoch=True, prog_bar=True)


class Sentences(Dataset):
    """Eight sentences of each class, which begin with a word of their own and are of any length."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.targets = torch.arange(NUM_CLASSES).repeat_interleave(8)
        self.ids = torch.randint(NUM_CLASSES + 1, WORDS, (len(self.targets), LENGTH), generator=generator)
        self.ids[:, 0] = self.targets + 1
        lengths = torch.randint(3, LENGTH + 1, (len(self.targets), 1), generator=generator)
        self.mask = (torch.arange(LENGTH) < lengths).long()
        self.ids *= self.mask  # the id of padding is 0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"input_ids": self.ids[i], "attention_mask": self.mask[i], "labels": int(self.targets[i])}


def texts(**options: Any) -> ContinualDataModule:
    """Batches as a tokenizer gives them."""
    scenario = ClassIncremental(num_tasks=NUM_TASKS, class_order=range(NUM_CLASSES))
    shape = {"batch_size": BATCH_SIZE, "epochs_per_task": (1, 2, 1)}
    return ContinualDataModule(DatasetSource(Sentences(0), Sentences(1)), scenario, **{**shape, **options})


HF_IMAGES = Case("hf_images", HuggingFaceImages, "model.classifier", "model.vit", ("pixel_values", "labels"))
HF_TEXTS = Case("hf_texts", HuggingFaceTexts, "encoder.classifier", "encoder.bert", stream=texts)
HF_DECODER = Case("hf_decoder", HuggingFaceDecoder, "encoder.score", "encoder.model", stream=texts)
AUXILIARY = Case("auxiliary", TwoLosses, "net.fc.3", "net.body")
