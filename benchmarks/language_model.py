"""Continual pre-training of a small causal language model on two corpora of real sentences, by perplexity on each.

    python benchmarks/language_model.py --first banking77_train.csv --second clinc150_full.json --method rewarm_replay

The model (2 layers, width 64) has seen nothing. It reads the first corpus, online-banking queries (Banking77), then the
second, queries to an assistant (CLINC150); words are the most frequent of both. Perplexity is per word, on sentences
that were not trained on, after each corpus; a run leaves it in ``perplexity.json``. Schedules, learning rate and epochs
were not tuned.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from trainer import make_trainer, note_minutes, quiet
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from lightning_cl.callbacks import HFT, LwF, ReWarmReDecay
from lightning_cl.datamodules import ContinualDataModule, DomainIncremental, Joint, TextSource


def anchor() -> LwF:
    """Holds the model to the one that read the corpus before, by the divergence of reinforcement learning."""
    return LwF(temperature=1.0, direction="reverse", reset_optimizer=False)


#: Callbacks, and the share of old samples; all with ReWarmReDecay but the first, whose rate is constant.
METHODS: dict[str, tuple[Callable[[], list[Callback]], float]] = {
    "constant": (list, 0.0),
    "rewarm": (lambda: [ReWarmReDecay()], 0.0),
    "rewarm_replay": (lambda: [ReWarmReDecay()], 0.25),
    "rewarm_hft": (lambda: [ReWarmReDecay(), HFT(reset_optimizer=False)], 0.0),
    "rewarm_replay_hft": (lambda: [ReWarmReDecay(), HFT(reset_optimizer=False)], 0.25),
    "rewarm_anchor": (lambda: [ReWarmReDecay(), anchor()], 0.0),
    "joint": (lambda: [ReWarmReDecay()], 0.0),
}
CORPORA = ("first", "second")


class LanguageModel(LightningModule):
    """A small GPT-2 with the loss of the next word; it knows nothing of tasks but whose sentences it evaluates."""

    def __init__(self, words: int, padding: int, lr: float = 2e-3) -> None:
        super().__init__()
        ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), padding)
        rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        config = GPT2Config(vocab_size=words, n_embd=64, n_layer=2, n_head=4, n_positions=32, **ids, **rates)
        self.net, self.lr = GPT2LMHeadModel(config), lr
        self.loss, self.count = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **_: Any) -> Any:
        """The mean loss of a batch's words, and their logits."""
        return self.net(input_ids=input_ids, attention_mask=attention_mask, labels=labels)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Mean loss of the batch's words."""
        return self(**batch).loss

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.loss.zero_()
        self.count.zero_()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add the loss of every word to the sum of its corpus."""
        logits = self(**batch).logits[:, :-1].log_softmax(-1)
        words = batch["labels"][:, 1:]
        picked = logits.gather(-1, words.clamp_min(0)[..., None])[..., 0].masked_fill(words < 0, 0.0)
        of = self.trainer.datamodule.source.test_domains[self.trainer.datamodule.eval_batch(batch_idx, "val").index]
        self.loss.index_add_(0, of, -picked.sum(1).double())
        self.count.index_add_(0, of, (words >= 0).sum(1).double())

    def perplexity(self) -> dict[str, float]:
        """Of the corpora that were evaluated, by name."""
        means = (self.loss / self.count).tolist()
        return {name: math.exp(mean) for name, mean in zip(CORPORA, means, strict=True) if not math.isnan(mean)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW as the paper has it."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr, betas=(0.9, 0.95), weight_decay=0.1)


class Watch(Callback):
    """Perplexities at every task's end."""

    def __init__(self) -> None:
        self.found: list[dict[str, float]] = []

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note them."""
        self.found.append(pl_module.perplexity())


def sentences(path: Path) -> list[str]:
    """All training sentences of Banking77 (csv) or CLINC150 (json), in one order for all runs."""
    if path.suffix == ".json":
        found = [text for text, _ in json.loads(path.read_text())["train"]]
    else:
        with path.open(encoding="utf-8") as file:
            found = [row["text"] for row in csv.DictReader(file)]
    random.Random(0).shuffle(found)
    return found


def word_tokenizer(texts: list[str], words: int) -> PreTrainedTokenizerFast:
    """The most frequent words of some texts."""
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(
        map(str.lower, texts), trainers.WordLevelTrainer(vocab_size=words, special_tokens=["[UNK]"])
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[UNK]", model_input_names=["input_ids", "attention_mask"]
    )


def run(args: argparse.Namespace) -> Path:
    """One method, one seed."""
    seed_everything(args.seed, verbose=False)
    corpora = [[text.lower() for text in sentences(path)] for path in (args.first, args.second)]
    train, test = (
        [text for part in corpora for text in part[cut]] for cut in (slice(args.train), slice(-args.test, None))
    )
    tokenizer = word_tokenizer(train, args.words)
    domains = {f"{split}_domains": [0] * n + [1] * n for split, n in (("train", args.train), ("test", args.test))}
    source = TextSource((train, test), tokenizer, max_length=24, targets="tokens", classes=False, **domains)
    make, share = METHODS[args.method]
    scenario = Joint() if args.method == "joint" else DomainIncremental()
    stream = ContinualDataModule(
        source, scenario, args.batch_size, args.epochs, 128, seed=args.seed, replay_share=share, evaluate_on="all"
    )
    stream.setup()
    watch, folder = Watch(), args.out / f"language_model_{args.method}_seed{args.seed}"
    trainer = make_trainer([*make(), watch], folder, check_val_every_n_epoch=args.epochs, gradient_clip_val=1.0)
    trainer.fit(LanguageModel(len(tokenizer), tokenizer.pad_token_id), datamodule=stream)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "perplexity.json").write_text(json.dumps(watch.found, indent=1) + "\n")
    return folder


def main() -> None:
    """Read the command line, run, and note the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=Path, required=True)
    parser.add_argument("--second", type=Path, required=True)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--train", type=int, default=2000, help="training sentences of each corpus")
    parser.add_argument("--test", type=int, default=500, help="other sentences of each corpus")
    parser.add_argument("--words", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    quiet()
    start = time.perf_counter()
    folder = run(args)
    minutes = note_minutes(folder, start)
    print(f"{args.method}, seed {args.seed}: {minutes}", (folder / "perplexity.json").read_text())


if __name__ == "__main__":
    main()
