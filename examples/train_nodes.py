"""One continual run on all GPUs of all nodes; started by `slurm.sh`, or by torchrun on each node.

    srun python examples/train_nodes.py                                                     # under SLURM, see slurm.sh
    torchrun --nnodes 2 --nproc_per_node 4 --rdzv_backend c10d --rdzv_endpoint NODE0:29400 examples/train_nodes.py

`batch_size` is the batch of one step over all of them, so the result is that of one GPU. A run that was cut off goes on
from its last checkpoint, also on another number of nodes.
"""

from __future__ import annotations

import os

from lightning import Trainer, seed_everything

from lightning_cl.callbacks import CODAPrompt, ContinualCheckpoint, ContinualEvaluation
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, Digits
from lightning_cl.models import ImageClassifier

if __name__ == "__main__":
    seed_everything(0)
    nodes = int(os.environ.get("SLURM_NNODES", os.environ.get("GROUP_WORLD_SIZE", 1)))
    per_node = int(os.environ.get("SLURM_NTASKS_PER_NODE", os.environ.get("LOCAL_WORLD_SIZE", 1)))
    stream = ContinualDataModule(Digits(image_size=16), ClassIncremental(num_tasks=5), batch_size=64, num_workers=2)
    callbacks = [CODAPrompt(), ContinualCheckpoint("checkpoints"), ContinualEvaluation()]
    trainer = Trainer(max_epochs=-1, num_nodes=nodes, devices=per_node, strategy="ddp", callbacks=callbacks)
    trainer.fit(ImageClassifier("vit_nano_omniglot", num_classes=10), datamodule=stream, ckpt_path="last")
