"""Self-supervised epochs: which steps they replace, and their loss typed out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_cl.callbacks import TEEN, SelfSupervisedPretraining
from lightning_cl.callbacks.few_shot import self_supervised_pretraining as pretraining
from lightning_cl.datamodules import FewShot

from ..by_hand import Net, make_online, make_stream, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def fitted(*tricks: Any) -> Net:
    stream = make_stream(scenario=FewShot(2, 2, 3), epochs_per_task=[3, 1, 1])
    return run(TEEN(alpha=0.0), callbacks=tricks, stream=stream)


def test_without_epochs_it_changes_nothing() -> None:
    found, expected = weights(fitted(SelfSupervisedPretraining(0, width=6))), weights(fitted())
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_first_epochs_tell_pairs_of_views_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[tuple[int, int]] = []
    given: list[list[torch.Tensor]] = []
    learn, own = pretraining.learn_features, pretraining.ContrastiveEpochs.own_step

    def noted(step: Any, views: Any) -> Any:
        assert not torch.equal(views[0], views[1])
        assert all(view.shape == step.inputs.shape for view in views)
        given.append(learn(step, views))
        return given[-1]

    def made(part: Any, step: Any) -> Any:
        loss = own(part, step)
        if loss is not None:
            a, b = (part.project(features) for features in given[-1])
            rows = torch.nn.functional.normalize(torch.cat([a, b]), dim=1)
            count, logits, total = len(a), rows @ rows.T / 0.3, 0.0
            for i in range(2 * count):
                others = torch.cat([logits[i, :i], logits[i, i + 1 :]])
                total = total + others.logsumexp(0) - logits[i, (i + count) % (2 * count)]
            torch.testing.assert_close(loss, total / (2 * count))
            losses.append((step.task.index, step.module.trainer.current_epoch))
        return loss

    monkeypatch.setattr(pretraining, "learn_features", noted)
    monkeypatch.setattr(pretraining.ContrastiveEpochs, "own_step", made)
    net = fitted(SelfSupervisedPretraining(2, temperature=0.3, width=6))
    assert losses == [(0, 0)] * 3 + [(0, 1)] * 3  # 20 samples in batches of 8
    assert [len(steps) for steps in net.tasks] == [3, 0, 0]  # the user's steps: the last epoch of the base session
    assert not torch.equal(net.body[1].weight, fitted().body[1].weight)


def test_every_parameter_has_a_gradient_on_one_process_as_under_ddp() -> None:
    """Otherwise decay and the step counts of an optimiser would differ between one process and several."""
    without: list[list[str]] = []

    class Noting(Net):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            without.append([name for name, p in self.named_parameters() if p.requires_grad and p.grad is None])

    net = Noting().double()
    run(SelfSupervisedPretraining(3, width=6), net=net, stream=make_stream(scenario=FewShot(2, 2, 3)))
    assert len(without) > 6
    assert not any(without)


def test_bad_arguments_and_streams() -> None:
    with pytest.raises(ValueError, match="`epochs` is -1; give"):
        SelfSupervisedPretraining(-1)
    with pytest.raises(ValueError, match="SelfSupervisedPretraining ends its base session when a task ends"):
        run(SelfSupervisedPretraining(), stream=make_online())
