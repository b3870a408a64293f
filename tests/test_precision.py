"""``torch.compile``, 16-bit and double precision: the same answers, finite losses, the same bits after a resume."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from conformance.methods import CHOSEN, METHODS, make
from conformance.modules import PLAIN, suited
from conformance.runs import assert_same_bits, attached, train
from conformance.streams import digits
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.testing import assert_close

PROMPTED = [m for m in METHODS if m.__name__ in ("CODAPrompt", "DualPrompt", "L2P", "OnePrompt")]
COMPILED = [m for m in METHODS if m.__name__ in (*CHOSEN, "FeCAM")]  # FeCAM keeps inverses between its answers
QUICK = ("CODAPrompt", "ExperienceReplay", "MVP", "PrototypeClassifier")


def images(count: int) -> torch.Tensor:
    return torch.from_numpy(digits()[1][0][:count]).float()[:, None] / 255.0


@pytest.mark.parametrize("whole", [False, True], ids=["net", "module"])
@pytest.mark.parametrize(
    "method",
    [pytest.param(m, id=m.__name__, marks=() if m.__name__ == "CODAPrompt" else pytest.mark.slow) for m in PROMPTED],
)
def test_a_compiled_module_answers_the_same(method, whole: bool) -> None:
    """With the graph capture of ``torch.compile`` and exact kernels, also for a batch of another size."""
    torch._dynamo.reset()
    module = attached(PLAIN, make(method)).eval()
    expected = [module(images(count)) for count in (6, 3)]
    target = module if whole else module.net
    compiled = torch.compile(target, backend="aot_eager")
    with torch.no_grad():
        for count, logits in zip((6, 3), expected, strict=True):
            assert_close(compiled(images(count)), logits.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [pytest.param(m, id=m.__name__, marks=pytest.mark.slow) for m in COMPILED])
def test_a_module_that_was_compiled_before_the_fit_trains_the_same(method, tmp_path) -> None:
    """``torch.compile(module)`` gives Lightning compiled steps, which must not hide what the method adds to them."""
    torch._dynamo.reset()
    case = suited(PLAIN, method)
    compiled = replace(case, build=lambda *given: torch.compile(case.build(*given), backend="eager"))
    options = {"limit_train_batches": 2, "stream_options": {"epochs_per_task": 1}}
    expected, run = (train(kind, make(method), tmp_path, **options) for kind in (case, compiled))
    assert_close(run.watcher.losses, expected.watcher.losses, rtol=1e-4, atol=1e-5)
    assert torch.equal(run.evaluation.correct["class_il"], expected.evaluation.correct["class_il"])


@pytest.mark.skipif(not hasattr(LightningModule, "to_torchscript"), reason="Lightning 2.8 leaves TorchScript out")
@pytest.mark.parametrize("method", METHODS)
def test_a_module_can_be_traced(method) -> None:
    """As ``torch.jit.trace`` does, and so TensorBoard's picture of the network."""
    module = attached(PLAIN, make(method)).eval()
    with torch.no_grad():
        expected = module(images(4))
        traced = module.to_torchscript(method="trace", example_inputs=images(4))
        assert_close(traced(images(4)), expected)


@pytest.mark.parametrize(
    "method", [pytest.param(m, id=m.__name__, marks=() if m.__name__ in QUICK else pytest.mark.slow) for m in METHODS]
)
def test_every_method_runs_in_bf16(method, tmp_path) -> None:
    run = train(PLAIN, make(method), tmp_path, precision="bf16-mixed", limit_train_batches=2)
    assert run.watcher.losses
    assert all(math.isfinite(loss) for loss in run.watcher.losses)
    assert run.evaluation.total.sum() > 0
    state = run.result()
    numbers = {n: v for n, v in state.items() if v.is_floating_point() and not n.endswith("attn_mask")}  # of CLIP
    assert [name for name, value in numbers.items() if not value.isfinite().all()] == []
    kept = {n: v.dtype for n, v in run.module.state_dict().items() if n.startswith("net.")}
    assert set(kept.values()) <= {torch.float32}  # mixed: weights stay in full precision


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
@pytest.mark.parametrize("method", [m for m in METHODS if m.__name__ in ("FineTuning", "CODAPrompt")])
def test_a_resumed_run_loses_no_precision(method, precision, tmp_path) -> None:
    """Lightning loads a checkpoint before it converts the module."""
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=6, save_top_k=-1)
    whole = train(PLAIN, make(method), tmp_path, callbacks=[saving], precision=precision)
    resumed = train(PLAIN, make(method), tmp_path, ckpt_path=tmp_path / "step=6.ckpt", precision=precision)
    assert_same_bits(resumed.result(), whole.result())
