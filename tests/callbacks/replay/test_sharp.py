"""Hidden-activation replay: what is remembered, what stays, and the loss of a whole run typed out."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks import SHARP
from lightning_cl.nn.heads.neighbors import neighbor_logits

from ..by_hand import Net, make_online, make_stream, run

pytestmark = pytest.mark.filterwarnings("ignore")


class Deep(Net):
    """A network of three layers that notes what the stage and the head were given in every training step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(16, 12), nn.Dropout(0.5), nn.ReLU(), nn.Linear(12, 9), nn.Tanh()
        )
        self.steps: list[tuple[int, Tensor, Tensor, Tensor]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        given: dict[str, Tensor] = {}
        # Before the first layer behind the stage's own hooks, and the head.
        hooks = [
            layer.register_forward_pre_hook(lambda _, args, name=name: given.update({name: args[0].detach().clone()}))
            for name, layer in (("stage", self.body[4]), ("head", self.fc))
        ]
        loss = super().training_step(batch, batch_idx)
        for hook in hooks:
            hook.remove()
        self.steps.append((self.trainer.datamodule.task.index, given["stage"], given["head"], batch[1]))
        return loss


@cache
def finished() -> tuple[Any, SHARP]:
    method = SHARP(12, 5, neighbors=3, stage="body.4")
    return run(method, net=Deep().double()).eval(), method


def images() -> tuple[Tensor, Tensor]:
    """All training samples, and their labels."""
    source = make_stream().source
    source.setup()
    pairs = [source.item("train", i) for i in range(len(source.train_labels))]
    transform = source.eval_transform()
    return torch.stack([transform(image) for image, _ in pairs]).double(), source.train_labels


def test_the_memory_holds_activations_of_samples_of_their_class_in_eight_bits() -> None:
    module, method = finished()
    memory = method.memory
    assert memory.buffer.read(memory.buffer.used) is None  # no sample, and no position
    assert memory.buffer.labels.bincount().tolist() == [2] * 6
    assert memory.nbytes == 12 * (8 + method.bytes_beside(module))  # a label, and what is kept beside it
    inputs, labels = images()
    with torch.no_grad():
        hidden = module.body[:4](inputs).float()
    codes, low, step = (memory.extras[name] for name in ("codes", "low", "step"))
    for slot, label in enumerate(memory.buffer.labels.tolist()):
        kept = low[slot] + step[slot] * codes[slot]
        off = (hidden[labels == label] - kept).abs().amax(dim=1)
        spread = hidden.amax(dim=1)[labels == label] - hidden.amin(dim=1)[labels == label]
        assert bool((off <= spread / 510 + 1e-6).any())


def test_after_the_first_task_the_front_stays_and_the_rest_learns() -> None:
    module, _ = finished()
    first, last = module.ends[0], module.ends[-1]
    for name in first:
        assert torch.equal(first[name], last[name]) == (name.startswith(("body.1", "fc")))


def test_remembered_rows_join_in_front_of_the_stage_and_the_front_drops_nothing() -> None:
    module, _ = finished()
    inputs, _ = images()
    with torch.no_grad():
        clean = module.body[:4](inputs)
    for task, stage, head, targets in module.steps:
        assert len(stage) == len(head) == len(targets) + (5 if task else 0)
        if task:  # dropout rests, too: the stream's rows are activations of samples as they are in an evaluation
            own = torch.cdist(stage[: len(targets)], clean, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
            assert float(own.max()) < 1e-12


def test_the_gradient_is_that_of_the_contrast_of_both_alone() -> None:
    """In the last step of a run, at the layer behind the stage."""
    net = Deep().double()
    method = SHARP(12, 5, stage="body.4", temperature=0.2, reset_optimizer=True)
    seen: dict[str, Any] = {}

    class Spy(Deep):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            super().on_before_optimizer_step(optimizer)
            layer = self.body[4]
            seen.update(weight=layer.weight.detach().clone(), bias=layer.bias.detach().clone())
            seen["gradient"] = layer.weight.grad.clone()

    net.__class__ = Spy
    labels: list[Tensor] = []
    recalled = SHARP.mixin.recall

    def recall(module: Any) -> Any:
        drawn = recalled(module)
        labels.append(torch.empty(0, dtype=torch.long) if drawn is None else drawn.labels)
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHARP.mixin, "recall", recall)
        run(method, net=net)
    _, stage, _, targets = net.steps[-1]
    weight = seen["weight"].requires_grad_()
    features = F.normalize(torch.tanh(stage @ weight.T + seen["bias"]), dim=1)
    every = torch.cat([targets, labels[-1]])
    logits, total = features @ features.T / 0.2, torch.zeros(())
    for i in range(len(every)):
        others = [a for a in range(len(every)) if a != i]
        positive = [p for p in others if every[p] == every[i]]
        shares = logits[i] - torch.logsumexp(logits[i, others], 0)
        total = total - shares[positive].mean() if positive else total
    count = sum(int((every == label).sum() > 1) for label in every)
    (expected,) = torch.autograd.grad(total / count, weight)
    torch.testing.assert_close(seen["gradient"], expected)


def test_the_nearest_references_answer() -> None:
    module, method = finished()
    inputs, _ = images()
    (part,) = module.continual.parts.values()
    with torch.no_grad():
        answers, features = module(inputs), module.body(inputs)
        codes, low, step = (method.memory.extras[name] for name in ("codes", "low", "step"))
        references = module.body[4:]((low[:, None] + step[:, None] * codes).double())
    torch.testing.assert_close(part.references, references)
    torch.testing.assert_close(answers, neighbor_logits(features, references, part.owners, 6, 3))


def test_what_it_cannot_work_on_is_refused() -> None:
    with pytest.raises(ValueError, match=r"SHARP remembers activations when a task ends, .* or `SCR`"):
        run(SHARP(12, 5, stage="body.4"), net=Deep().double(), stream=make_online())
    with pytest.raises(ValueError, match=r"SHARP remembers what .* no stages were found in this Net; name the part"):
        run(SHARP(12, 5))
    with pytest.raises(ValueError, match=r"SHARP needs a sample of each of the 6 classes"):
        run(SHARP(5, 5, stage="body.4"), net=Deep().double())
    with pytest.raises(ValueError, match=r"`stage='body.9'` is not a part"):
        run(SHARP(12, 5, stage="body.9"), net=Deep().double())
