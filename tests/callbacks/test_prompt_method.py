"""What all prompt methods have in common: one frozen ViT, one guard, one query, one cache."""

from __future__ import annotations

import copy

import pytest
import torch
from conformance.modules import PlainModule
from conformance.streams import make_stream
from lightning.pytorch import LightningModule, Trainer
from tiny import TinyModule, images, stream_info, task_of, tiny_vit, train
from torch import nn
from torch.testing import assert_close

from lightning_cl.callbacks import L2P, MVP, CODAPrompt, ContinualEvaluation, DualPrompt, OnePrompt, PrototypeClassifier

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")
INFO = stream_info(5)
MAKE = {
    "l2p": lambda **o: L2P(pool_size=6, prompt_length=3, top_k=2, init_range=(-1, 1), **o),
    "masked_l2p": lambda **o: L2P(pool_size=10, prompt_length=3, top_k=2, task_mask=True, copy_previous=True, **o),
    "l2p++": lambda **o: L2P(pool_size=6, prompt_length=4, top_k=2, form="prefix", layers=(0, 2), **o),
    "dual": lambda **o: DualPrompt(2, 3, (0, 1), (2, 3), init_range=(-1, 1), **o),
    "dual_by_layer": lambda **o: DualPrompt(2, 3, (0,), (1, 2), shared_keys=False, init_range=(-1, 1), **o),
    "coda": lambda **o: CODAPrompt(pool_size=10, prompt_length=4, layers=(0, 2), **o),
    "mvp": lambda **o: MVP(4, 2, 3, (0, 1), (2, 3), train_mask="task", **o),
    "one": lambda **o: OnePrompt((0, 2), (2, 3), **{k: v for k, v in o.items() if k != "cache_queries"}),
}
every = pytest.mark.parametrize("kind", MAKE)
asking = pytest.mark.parametrize("kind", [kind for kind in MAKE if kind != "one"])


def attached(kind, module=None, **options):
    torch.manual_seed(0)
    module = module or TinyModule()
    MAKE[kind](**options).attach_once(module, INFO)
    return module


def trained(kind, up_to=2):
    """A module that has been trained on tasks up to ``up_to``, with one optimiser for all."""
    module = attached(kind)
    optimizer = module.configure_optimizers()
    for index in range(up_to + 1):
        module.on_task_start(task_of(INFO, index))
        train(module, INFO.classes_per_task[index], optimizer=optimizer)
    return module.eval()


def count_passes(vit):
    """A list that grows by the batch size of every pass through the last block but one, where MVP's query ends."""
    passes = []
    vit.blocks[-2].mlp.register_forward_hook(lambda _, args, __: passes.append(len(args[0])))
    return passes


# ---------------------------------------------------------------------- predictions


@every
def test_predictions_do_not_depend_on_the_batch(kind):
    module, x = trained(kind), images(9)
    together, order = module(x), torch.randperm(9)
    assert_close(torch.cat([module(x[i : i + 1]) for i in range(9)]), together, rtol=0, atol=1e-10)
    assert_close(torch.cat([module(part) for part in x.split(7)]), together, rtol=0, atol=1e-10)
    assert_close(module(x[order]), together[order], rtol=0, atol=1e-10)
    assert_close(module(x.repeat(14, 1, 1, 1)), together.repeat(14, 1), rtol=0, atol=1e-10)


@every
def test_a_reloaded_module_predicts_the_same(kind):
    module, other = trained(kind), attached(kind)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.eval()(images(5)), module(images(5)))
    assert torch.equal(copy.deepcopy(module)(images(5)), module(images(5)))


@every
def test_going_on_after_a_reload_is_going_on(kind):
    module, other = trained(kind), attached(kind)
    other.load_state_dict(module.state_dict())
    other.on_train_start()  # the middle of a task: nothing is drawn or copied anew
    for one in (module, other):
        train(one, INFO.classes_per_task[2], optimizer=one.configure_optimizers())
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name


# ---------------------------------------------------------------------- what learns


@every
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_after_a_task_only_its_own_rows_have_moved(kind, optimizer):  # moments, momentum and decay act on all of them
    module = attached(kind, TinyModule(optimizer))
    configured = module.configure_optimizers()
    own = {"masked_l2p": 2, "dual": 1, "dual_by_layer": 1, "coda": 2}.get(kind)
    for index in range(3):
        module.on_task_start(task_of(INFO, index))
        before = {name: p.detach().clone() for name, p in module.named_parameters()}
        train(module, INFO.classes_per_task[index], optimizer=configured)
        for name, parameter in module.named_parameters():
            size = 2 if name.startswith("net.head.") else own if not name.endswith("provider.general") else None
            if not name.startswith(("net.head.", "continual.parts.")):
                assert parameter.grad is None
                assert torch.equal(parameter, before[name]), name
            elif size is None:  # nothing is protected
                assert not torch.equal(parameter, before[name]), f"{name} did not learn"
            else:
                now, rows = parameter.detach().clone(), slice(size * index, size * (index + 1))
                assert not torch.equal(now[rows], before[name][rows]), f"{name} did not learn"
                now[rows] = before[name][rows]
                assert torch.equal(now, before[name]), name


@every
def test_every_prompt_that_wants_a_gradient_gets_one(kind):  # or DDP waits for it
    module = attached(kind)
    module.on_task_start(task_of(INFO, 0))
    train(module, INFO.classes_per_task[0], steps=1)
    assert [name for name, p in module.prompts.named_parameters() if p.requires_grad and p.grad is None] == []


# ---------------------------------------------------------------------- passes and cache


@every
def test_the_number_of_passes_of_a_training_step(kind):
    module = attached(kind)
    module.on_task_start(task_of(INFO, 0))
    passes = count_passes(module.net)
    train(module, INFO.classes_per_task[0], steps=1)
    assert passes == [8] * (1 if kind == "one" else 2)


def trainer_with(folder, *callbacks, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "default_root_dir": folder}
    return Trainer(**quiet, **options, callbacks=list(callbacks))


SMALL = {
    "l2p": lambda **o: L2P(pool_size=6, prompt_length=3, top_k=2, **o),
    "l2p++": lambda **o: L2P(pool_size=6, prompt_length=4, top_k=2, form="prefix", layers=(0, 2), **o),
    "dual": lambda **o: DualPrompt(2, 3, (0,), (1, 2), **o),
    "coda": lambda **o: CODAPrompt(pool_size=9, prompt_length=4, layers=(0, 2), **o),
}


def run(kind, folder, **options):
    torch.manual_seed(0)
    module, stream = PlainModule(), make_stream()
    evaluation = ContinualEvaluation(report=False, print_table=False)
    trainer = trainer_with(folder, SMALL[kind](**options), evaluation, num_sanity_val_steps=0)
    trainer.fit(module, datamodule=stream)
    return module, trainer, stream, evaluation


@pytest.mark.parametrize("kind", SMALL)
def test_evaluation_with_the_cache_is_evaluation_without(kind, tmp_path):
    results = [run(kind, tmp_path, cache_queries=cached) for cached in (True, False)]
    matrices = [evaluation.correct["class_il"] for *_, evaluation in results]
    assert torch.equal(matrices[0], matrices[1])
    for name, value in results[0][0].state_dict().items():
        assert torch.equal(value, results[1][0].state_dict()[name]), name
    hits = [module.net.prompt_state()[1].hits for module, *_ in results]
    assert hits[0] > 0
    assert hits[1] == 0


@pytest.mark.parametrize("cached", [True, False])
def test_the_second_evaluation_of_the_same_images_is_one_pass(cached, tmp_path):
    module, trainer, stream, _ = run("dual", tmp_path, cache_queries=cached)
    passes = count_passes(module.net)
    trainer.validate(module, datamodule=stream, verbose=False)
    first = sum(passes)
    passes.clear()
    trainer.validate(module, datamodule=stream, verbose=False)
    assert sum(passes) == (42 if cached else 84)  # 7 images of each of 6 classes
    assert first == sum(passes)  # they were the images of the validations, too


def test_other_images_in_equal_number_are_not_answered_from_memory(tmp_path):
    module, trainer, stream, _ = run("dual", tmp_path)
    passes = count_passes(module.net)
    other = make_stream(eval_transform=lambda image: 1 - stream.source.eval_transform()(image))
    trainer.validate(module, datamodule=other, verbose=False)
    assert sum(passes) == 84


def test_other_weights_of_the_backbone_are_asked_anew(tmp_path):
    module, trainer, stream, _ = run("dual", tmp_path)
    module.load_state_dict({name: value.clone() for name, value in module.state_dict().items()})
    passes = count_passes(module.net)
    trainer.validate(module, datamodule=stream, verbose=False)
    assert sum(passes) == 84


# ---------------------------------------------------------------------- votes


@pytest.mark.parametrize(
    ("kind", "batch_vote"), [("l2p", "always"), ("dual", "always"), ("l2p", "train"), ("dual", "never")]
)
def test_a_report_says_when_predictions_depend_on_the_batch(kind, batch_vote, tmp_path):
    module, trainer, _, evaluation = run(kind, tmp_path, batch_vote=batch_vote)
    told = [note for note in evaluation.build_report(trainer, module).notes if "depend on the batch" in note]
    assert len(told) == (batch_vote == "always")


# ---------------------------------------------------------------------- what does not fit


class Conv(LightningModule):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 10)


@every
def test_a_backbone_that_is_no_transformer(kind):
    known = r"Known are: .*timm VisionTransformer.*`lightning_cl.nn.attention.register_attention`, .* any network"
    with pytest.raises(ValueError, match=rf"no transformer that prompts .*conv \(Conv2d\).* {known}"):
        attached(kind, Conv())


@every
@pytest.mark.parametrize("pool", ["avg", "map"])
def test_a_vit_without_class_token(kind, pool):
    module = attached(kind, TinyModule(class_token=False, global_pool=pool))
    module.on_task_start(task_of(INFO, 0))
    before = {name: p.detach().clone() for name, p in module.continual.named_parameters() if p.requires_grad}
    train(module, (0, 1))
    moved = {name for name, p in module.continual.named_parameters() if name in before and (p != before[name]).any()}
    assert moved == before.keys()


@pytest.mark.parametrize("callback", [DualPrompt(), OnePrompt(), L2P(form="prefix", layers=(2, 3)), CODAPrompt()])
def test_a_layer_beyond_the_depth_can_be_mended_on_the_same_module(callback):
    module = TinyModule(depth=3)
    expected = module.eval()(images(2))
    with pytest.raises(ValueError, match="do not exist: the ViT has 3 blocks, 0 to 2; choose layers among these"):
        callback.attach_once(module, INFO)
    assert_close(module(images(2)), expected)  # it is still a plain model
    OnePrompt(layers=(0, 2), lengths=2).attach_once(module, INFO)


@pytest.mark.parametrize("pool_size", [3])
def test_more_tasks_than_the_pool_was_built_for(pool_size):
    with pytest.raises(ValueError, match="5 tasks but the pool only 3 experts; set `pool_size` to at least 5"):
        DualPrompt(pool_size=pool_size).attach_once(TinyModule(), INFO)
    with pytest.raises(ValueError, match="5 tasks but the pool only 3 components; set `pool_size` to at least 5"):
        CODAPrompt(pool_size=pool_size).attach_once(TinyModule(), INFO)
    with pytest.raises(ValueError, match="5 tasks x 2 prompts = 10, but the pool has 3; raise `pool_size`"):
        L2P(pool_size=pool_size, top_k=2, task_mask=True).attach_once(TinyModule(), INFO)


@pytest.mark.parametrize("callback", [L2P, OnePrompt, CODAPrompt])
def test_layers_are_named_once(callback):
    with pytest.raises(ValueError, match="name at least one layer, each once"):
        callback(layers=(0, 0))


# ---------------------------------------------------------------------- modules that pass by the prompts


def under_no_grad(vit, x):
    with torch.no_grad():
        features = vit.forward_head(vit.forward_features(x), pre_logits=True)
    return vit.head(features)


def detached(vit, x):
    return vit.head(vit.forward_head(vit.forward_features(x), pre_logits=True).detach())


def by_intermediates(vit, x):
    tokens, _ = vit.forward_intermediates(x)
    return vit.head(tokens[:, 0])


def by_intermediate_layers(vit, x):
    return vit.head(vit.get_intermediate_layers(x, n=1)[0].mean(1))


def by_hand(vit, x):
    x = vit._pos_embed(vit.patch_embed(x))
    for block in vit.blocks:
        x = block(x)
    return vit.head(vit.norm(x)[:, 0])


PASSING_BY = [under_no_grad, detached, by_intermediates, by_intermediate_layers, by_hand]


class Passing(PlainModule):
    way = staticmethod(lambda vit, x: vit(x))
    manual, skip = False, 0

    def __init__(self):
        super().__init__()
        self.automatic_optimization = not self.manual

    def forward(self, images):
        return self.way(self.net, images)

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == 0 and batch_idx < self.skip:
            return None
        loss = super().training_step(batch, batch_idx)
        if self.manual:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        return loss


def fit_passing(method, tmp_path, way=None, **attributes):
    torch.manual_seed(0)
    attributes |= {} if way is None else {"way": staticmethod(way)}
    module = type("Passing", (Passing,), attributes)()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    trainer = Trainer(accelerator="cpu", max_epochs=-1, default_root_dir=tmp_path, callbacks=[method], **options)
    trainer.fit(module, datamodule=make_stream(epochs_per_task=1))
    return trainer


FOR_PASSING = {
    "coda": lambda: CODAPrompt(pool_size=9, prompt_length=4, layers=(0, 1), ortho_weight=0.0),
    "dual": lambda: DualPrompt(2, 3, (0,), (1,)),
    "l2p": lambda: L2P(pool_size=6, prompt_length=2, top_k=2),
    "one": lambda: OnePrompt((0, 1), 3),
    "mvp": lambda: MVP(4, 2, 3, (0,), (1,), use_mask=False),
}


@pytest.mark.parametrize("kind", FOR_PASSING)
@pytest.mark.parametrize("way", PASSING_BY)
def test_prompts_that_are_never_used_are_found_out_in_the_first_step(kind, way, tmp_path):
    with pytest.raises(ValueError, match=r"no gradient reached .* `Passing.training_step` calls `self.net`"):
        fit_passing(FOR_PASSING[kind](), tmp_path, way)


@pytest.mark.parametrize("attributes", [{"manual": True}, {"skip": 2}], ids=["manual", "first_steps_left_out"])
def test_they_are_found_out_however_the_module_trains(attributes, tmp_path):
    with pytest.raises(ValueError, match="no gradient reached the prompts"):
        fit_passing(OnePrompt((0, 1), 3), tmp_path, by_hand, **attributes)
    assert fit_passing(OnePrompt((0, 1), 3), tmp_path, **attributes).global_step > 6


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["coda", "dual", "l2p", "one"])
def test_prompts_beside_class_means_are_refused(kind, first, tmp_path):
    methods = [FOR_PASSING[kind](), PrototypeClassifier()]
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", callbacks=methods if first else methods[::-1], **options)
    with pytest.raises(ValueError, match=r"trains prompts, but PrototypeClassifier .* leave out one of the two"):
        trainer.fit(PlainModule(), datamodule=make_stream())


# ---------------------------------------------------------------------- names


class Own(TinyModule):
    """Has an attribute that is named as ours."""

    def __init__(self):
        super().__init__()
        self.prompts = nn.LayerNorm(10).double()

    def forward(self, x):
        return self.prompts(super().forward(x).clamp(min=-10))


@every
def test_a_users_own_attribute_of_the_name_stays(kind):
    torch.manual_seed(0)
    mine = Own().prompts.weight.detach().clone()
    module = attached(kind, Own())
    assert torch.equal(module.prompts.weight, mine)
    module.on_task_start(task_of(INFO, 0))
    train(module, INFO.classes_per_task[0])
    assert not torch.equal(module.prompts.weight, mine)
    other = attached(kind, Own())
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.eval()(images(3)), module.eval()(images(3)))


@every
def test_a_state_from_when_prompts_were_a_part_of_the_module_is_loaded(kind):
    module, other = trained(kind), attached(kind)
    part = f"continual.parts.{next(iter(module.continual.parts))}.provider."
    former = {name.replace(part, "prompts."): value for name, value in module.state_dict().items()}
    assert "prompts.task_counter" in former
    other.load_state_dict(former)
    assert other.prompts.task == 2
    assert torch.equal(other.eval()(images(5)), module(images(5)))


def test_one_prompt_method_a_module_also_with_two_backbones():
    module = TinyModule()
    module.second = tiny_vit()
    DualPrompt(2, 3, (0,), (1,), backbone="net", head="net.head").attach_once(module, INFO)
    with pytest.raises(ValueError, match="has prompts already; use one prompt method at a time"):
        OnePrompt((0,), 2, backbone="second").attach_once(module, INFO)
