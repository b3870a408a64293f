"""Find the boundaries of a stream that nobody tells: delay and false alarms of the detector of ``TaskFreeMAS``.

    python benchmarks/boundaries.py [--blurry 10 --seeds 0 1 2]

Handwritten digits in five tasks of two classes each, in one pass with five updates a batch; a share of the samples of
half of the classes is dealt out over all tasks (Si-Blurry). A boundary is found when the loss has come to rest behind a
peak, so the delay holds the time that the network takes to learn what is new. Places are batches of the stream.
"""

from __future__ import annotations

import argparse
import json
import statistics
from tempfile import TemporaryDirectory

from lightning import seed_everything
from trainer import make_trainer, quiet

from lightning_cl.callbacks import TaskFreeMAS
from lightning_cl.datamodules import ContinualDataModule, Digits, SiBlurry
from lightning_cl.metrics.functional import boundary_score
from lightning_cl.models import ImageClassifier

UPDATES, BATCH = 5, 16


def found(blurry: int, seed: int, options: dict[str, float]) -> tuple[list[int], list[int]]:
    """Batches at which boundaries were found, and those at which tasks begin."""
    seed_everything(seed, verbose=False)
    scenario = SiBlurry(num_tasks=5, disjoint_class_pct=50, blurry_sample_pct=blurry)
    stream = ContinualDataModule(Digits(), scenario, seed=seed, batch_size=BATCH, updates_per_batch=UPDATES)
    method = TaskFreeMAS(strength=0.01, **options)  # type: ignore[arg-type]
    with TemporaryDirectory() as folder:
        trainer = make_trainer([method], folder, limit_val_batches=0)
        trainer.fit(ImageClassifier(optimizer="adam", lr=0.001), datamodule=stream)
    sizes = [len(index) for index in stream.layout.train_index]
    starts = [sum(-(-size // BATCH) for size in sizes[:task]) for task in range(1, len(sizes))]
    return sorted({at // UPDATES for at in method.report_facts()["found_at"]}), starts


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blurry", type=int, nargs="+", default=[0, 10, 30], help="percent of samples dealt out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--window", type=int, default=TaskFreeMAS.window)
    parser.add_argument("--mean", type=float, default=TaskFreeMAS.mean)
    parser.add_argument("--deviation", type=float, default=TaskFreeMAS.deviation)
    given = parser.parse_args()
    quiet()
    options = {"window": given.window, "mean": given.mean, "deviation": given.deviation}
    table = {}
    for blurry in given.blurry:
        scores = []
        for seed in given.seeds:
            places, starts = found(blurry, seed, options)
            scores.append(boundary_score(places, starts))
            print(blurry, seed, places, starts, scores[-1], flush=True)
        parts = zip(("delay", "missed", "false alarms"), zip(*scores, strict=True), strict=True)
        table[f"{blurry} % blurry"] = {
            name: {"mean": round(statistics.mean(values), 3), "values": [round(v, 3) for v in values]}
            for name, values in parts
        }
    print(json.dumps({"options": options, **table}, indent=2))


if __name__ == "__main__":
    main()
