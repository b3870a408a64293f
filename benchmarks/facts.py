"""Single facts in a small language model: how fast each is learned, and how it is forgotten, by its perplexity.

    python benchmarks/facts.py --corpus clinc150_full.json

The protocol of arXiv:2406.11813, small. The model of `language_model.py` reads sentences it knows nothing of (CLINC150)
in one pass. Facts about made-up names are put into some of its batches, `--injections` times, `--interval` steps
apart: as other sentences of the same meaning each time (paraphrased), as the same sentence (duplicated), or once. Every
ten steps the perplexity of each fact's last word is read, in the sentence that was injected first (memorised) and in
one that never was (understood). Learnability compares the lowest perplexity from the first injection on to `--watch`
steps after the last with the one before it, forgetting that at the end with the lowest; medians over facts without
outliers are in `percent.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from language_model import LanguageModel, sentences, word_tokenizer
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from trainer import make_trainer, note_minutes, quiet

from lightning_cl.callbacks import ReWarmReDecay
from lightning_cl.datamodules import ContinualDataModule, SampleIncremental, TextSource
from lightning_cl.datamodules.injections import injected, injection_steps
from lightning_cl.metrics.functional.item_curves import fact_forgetting, learnability, without_outliers

KINDS = ("paraphrased", "duplicated", "once")
PROBES = ("memorised", "understood")
#: The last is never injected.
SENTENCES = (
    "my friend {name} lives in {place}",
    "the home of {name} is {place}",
    "you can visit {name} in {place}",
    "the address of {name} is in {place}",
    "please send the card of {name} to {place}",
    "if you look for {name} go to {place}",
)


def facts_of(number: int) -> list[list[str]]:
    """For each fact all its sentences; names and places are words of no other sentence."""
    return [[text.format(name=f"name{fact}", place=f"place{fact}") for text in SENTENCES] for fact in range(3 * number)]


class Curves(Callback):
    """The perplexity of every probe, read in eval mode every so many steps."""

    def __init__(self, tokenizer: Any, probes: list[str], every: int = 10) -> None:
        found = tokenizer(probes, padding=True, return_tensors="pt")
        self.inputs, self.every = {name: found[name] for name in ("input_ids", "attention_mask")}, every
        self.last = self.inputs["attention_mask"].sum(1) - 1  # position of the last word
        self.steps, self.rows = list[int](), list[Tensor]()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Read them."""
        if trainer.global_step % self.every:
            return
        pl_module.eval()
        with torch.no_grad():
            logits = pl_module.net(**self.inputs).logits.log_softmax(-1)
        pl_module.train()
        rows = torch.arange(len(self.last))
        words = self.inputs["input_ids"][rows, self.last]
        self.steps.append(trainer.global_step)
        self.rows.append((-logits[rows, self.last - 1, words]).exp())


def measures(curves: Tensor, first: int, last: int) -> dict[str, float]:
    """Medians over facts of ``(E, F)`` perplexities: ``first`` is the first reading behind an injection.

    The lowest perplexity is one of the readings ``first`` to ``last``, and compared with the one before.
    """
    before, lowest = curves[first - 1], curves[first:last].min(0).values
    taught = torch.tensor([learnability(*pair) for pair in zip(before.tolist(), lowest.tolist(), strict=True)])
    lost = torch.tensor([fact_forgetting(*pair) for pair in zip(lowest.tolist(), curves[-1].tolist(), strict=True)])
    return {
        "learnability": float(without_outliers(taught).median()),
        "forgetting": float(without_outliers(lost).median()),
    }


def run(args: argparse.Namespace) -> dict[str, float]:
    """One seed, in percent."""
    seed_everything(args.seed, verbose=False)
    texts, facts = [text.lower() for text in sentences(args.corpus)], facts_of(args.facts)
    made_up = [text for fact in facts for text in fact] * 20  # so often that all their words are in the vocabulary
    tokenizer = word_tokenizer(texts[: args.train] * 2 + made_up, args.words)
    steps = injection_steps(args.start, args.injections, args.interval)
    batches: dict[int, list[str]] = {step: [] for step in steps}
    for fact, forms in enumerate(facts):
        kind = KINDS[fact % 3]
        for at, step in enumerate(steps if kind != "once" else steps[-1:]):
            batches[step].append(forms[at % (len(forms) - 1)] if kind == "paraphrased" else forms[0])
    train = injected(texts[: args.train], batches, args.batch_size)
    source = TextSource((train, texts[-50:]), tokenizer, max_length=24, targets="tokens", classes=False)
    stream = ContinualDataModule(source, SampleIncremental(1, order="stream"), args.batch_size, seed=args.seed)
    stream.setup()
    curves = Curves(tokenizer, [fact[at] for fact in facts for at in (0, -1)])
    trainer = make_trainer([ReWarmReDecay(), curves], limit_val_batches=0, gradient_clip_val=1.0)
    trainer.fit(LanguageModel(len(tokenizer), tokenizer.pad_token_id), datamodule=stream)
    found = torch.stack(curves.rows).double().unflatten(1, (-1, len(KINDS), len(PROBES)))  # (E, facts, kinds, probes)
    last = next(at for at, step in enumerate([*curves.steps, 10**9]) if step > steps[-1] + args.watch)
    first = {kind: steps[-1] if kind == "once" else steps[0] for kind in KINDS}
    return {
        f"{name}, {kind}, {probe}": value
        for of, kind in enumerate(KINDS)
        for at, probe in enumerate(PROBES)
        for name, value in measures(found[:, :, of, at], first[kind] // curves.every, last).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--facts", type=int, default=6, help="of each kind")
    parser.add_argument("--injections", type=int, default=5)
    parser.add_argument("--interval", type=int, default=20)
    parser.add_argument("--start", type=int, default=100, help="step of the first injection")
    parser.add_argument("--watch", type=int, default=20)
    parser.add_argument("--train", type=int, default=12000, help="sentences of the corpus")
    parser.add_argument("--words", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    quiet()
    begun = time.perf_counter()
    folder = args.out / f"language_model_facts_seed{args.seed}"
    found = run(args)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "percent.json").write_text(json.dumps(found, indent=1) + "\n")
    note_minutes(folder, begun)
    print((folder / "percent.json").read_text())


if __name__ == "__main__":
    main()
