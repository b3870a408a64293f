"""A folder of your own images, one sub-folder per class, arrives in tasks of a few classes.

    python examples/image_folder.py path/to/images --tasks 5

The folder holds `train/<class>/` and `test/<class>/`, or just `<class>/`, of which a fifth is then held out for tests.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lightning import Trainer, seed_everything

from lightning_cl.callbacks import ContinualEvaluation, PrototypeClassifier
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, ImageFolder
from lightning_cl.models import ImageClassifier


def main(
    root: str, tasks: int = 5, backbone: str = "vit_tiny_patch16_224", image_size: int = 224, **trainer_options: Any
) -> None:
    seed_everything(0)
    test_fraction = None if (Path(root) / "train").is_dir() else 0.2
    source = ImageFolder(root, test_fraction=test_fraction, image_size=image_size, normalize=False)
    stream = ContinualDataModule(source, ClassIncremental(num_tasks=tasks), batch_size=64)
    stream.setup()  # reads the file names, so that the number of classes is known
    print(f"{stream.info.num_classes} classes: {', '.join(stream.info.class_names[:10])} ...")
    colour = {"in_chans": 3}
    model = ImageClassifier(backbone, num_classes=stream.info.num_classes, pretrained=True, backbone_kwargs=colour)
    callbacks = [PrototypeClassifier(), ContinualEvaluation()]
    Trainer(max_epochs=-1, callbacks=callbacks, **trainer_options).fit(model, datamodule=stream)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="the folder")
    parser.add_argument("--tasks", type=int, default=5, help="the classes are shared out over so many tasks")
    args = parser.parse_args()
    main(args.root, args.tasks, logger=False, enable_checkpointing=False)
