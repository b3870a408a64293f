"""A share of old samples within every epoch of a task."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from tiny_stream import BATCHES, EPOCHS, TinyModule, make_stream

from lightning_cl.callbacks import FineTuning
from lightning_cl.datamodules import SiBlurry

pytestmark = pytest.mark.filterwarnings("ignore")


class Noting(TinyModule):
    """Notes the labels of every step."""

    def on_train_start(self):
        self.labels = []

    def training_step(self, batch, batch_idx):
        self.labels.append((self.trainer.datamodule.task_index, batch[1].tolist()))
        loss = super().training_step(batch, batch_idx)
        assert float(loss) < 100  # no class that comes is masked
        return loss


def test_later_tasks_hold_old_samples_in_the_place_of_their_own(tmp_path):
    torch.manual_seed(0)
    stream, module = make_stream(replay_share=0.5), Noting()
    options = {"max_epochs": -1, "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(
        accelerator="cpu", callbacks=[FineTuning(train_mask="task")], default_root_dir=tmp_path, **options
    )
    trainer.fit(module, datamodule=stream)
    assert len(module.labels) == sum(b * e for b, e in zip(BATCHES, EPOCHS, strict=True))
    for task, labels in module.labels:
        own = [label for label in labels if label in stream.layout.info.classes_per_task[task]]
        assert len(own) == (len(labels) if task == 0 else len(labels) - len(labels) // 2)
        assert max(labels) < 2 * (task + 1)


def test_a_pass_over_a_task_is_over_its_own_samples():
    stream = make_stream(replay_share=0.5)
    stream.setup()
    labels = torch.cat([batch[1] for batch in stream.train_loader_for(2)])
    assert sorted(labels.tolist()) == [4] * 7 + [5] * 8


def test_one_ordered_pass_is_refused():
    stream = make_stream(replay_share=0.5, scenario=SiBlurry(3), epochs_per_task=1)
    with pytest.raises(ValueError, match=r"`replay_share=0\.5` mixes samples of earlier tasks"):
        stream.setup()


@pytest.mark.parametrize("share", [1.0, -0.1])
def test_bad_arguments(share):
    with pytest.raises(ValueError, match=f"`replay_share` is {share}; give a share of old samples"):
        make_stream(replay_share=share)
