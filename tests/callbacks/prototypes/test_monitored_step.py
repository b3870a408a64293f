"""What the user's step logs can be monitored, though class means train nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

from lightning_cl.callbacks import PrototypeClassifier

from ..by_hand import Net, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")


class Logging(Net):
    """Logs its loss, which may decide about the learning rate."""

    def __init__(self, plateau: bool = False) -> None:
        super().__init__()
        self.plateau, self.losses = plateau, []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(float(loss))
        assert not loss.requires_grad
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        if not self.plateau:
            return optimizer
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "train_loss"}}


def fit(*callbacks: Any, plateau: bool = False, **options: Any) -> Logging:
    net = Logging(plateau)
    net.load_state_dict(start())
    return run(PrototypeClassifier(), net=net, callbacks=callbacks, **options)


@pytest.mark.parametrize("kind", ["checkpoint", "early stopping", "plateau"])
def test_what_the_users_step_logs_is_known(kind: str, tmp_path: Path) -> None:
    plain = fit()
    assert not plain.losses  # nobody asks: no second pass
    best = ModelCheckpoint(tmp_path, monitor="train_loss")
    if kind == "checkpoint":
        net = fit(best, enable_checkpointing=True)
        assert float(best.best_model_score) in [pytest.approx(float(loss), rel=1e-6) for loss in net.losses]
    else:
        net = fit(EarlyStopping("train_loss", patience=100)) if kind == "early stopping" else fit(plateau=True)
    assert len(net.losses) == 3 * 3  # the batches of a task's first epoch
    assert float(net.trainer.callback_metrics["train_loss"]) == pytest.approx(net.losses[-1])
    with torch.no_grad():  # answers of the class means, the last batch of all among them
        x, y = net.tasks[2][2]
        assert net.losses[-1] == pytest.approx(float(F.cross_entropy(net.eval()(x), y)))
    for name, value in plain.continual.parts.state_dict().items():
        assert torch.equal(net.continual.parts.state_dict()[name], value)
    assert all(torch.equal(value, start()[name]) for name, value in weights(net).items())
