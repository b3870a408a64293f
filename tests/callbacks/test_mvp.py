from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny import TinyModule, images, stream_info, task_of, tiny_vit, train
from torch.testing import assert_close

from lightning_cl.callbacks import MVP
from lightning_cl.mixins import ContinualMixin

from .vit_base import num_trained

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")
INFO = stream_info(5)
SMALL = {"pool_size": 3, "general_length": 2, "expert_length": 3}
LABELS = torch.tensor([0, 1, 3, 2, 1, 0, 3])  # of the classes 0 to 3, seen in tasks 0 and 1
SEEN = torch.arange(10) < 4


def attached(module=None, usage=(0, 5, 2), task=1, **options):
    """A module in the middle of task 1, with a pool that has been used and masks that were trained."""
    module = module or TinyModule()
    torch.manual_seed(0)
    MVP(**{**SMALL, **options}).attach_once(module, INFO)
    module.on_task_start(task_of(INFO, task))
    torch.manual_seed(1)
    pool = module.prompts
    pool.usage.copy_(torch.tensor(usage))
    pool.keys.data.copy_(torch.randn(3, 48).double())
    pool.keys.data[1] += queries()[1]
    pool.mask.data.add_(torch.randn_like(pool.mask))
    return module.train()


def queries():
    """The class token after block 4 of 6."""
    vit, seen = tiny_vit(), []
    vit.blocks[4].register_forward_hook(lambda _, __, output: seen.append(output[:, 0]))
    vit(images(len(LABELS)))
    return seen[0].detach()


@pytest.mark.parametrize(("num_classes", "published"), [(100, 554_060), (200, 631_960)])
def test_the_number_of_trained_parameters_is_the_published_one(num_classes, published):
    assert num_trained(MVP(), num_classes) == published


# ---------------------------------------------------------------------- a step, written out


def literal_gradients(
    module,
    criterion=F.cross_entropy,
    use_mask=True,
    use_afs=True,
    use_gsf=True,
    alpha=0.5,
    gamma=2.0,
    margin=0.5,
    code=False,
    cvpt_weight=1.0,
    usage=(0, 5, 2),
):
    """Gradients of one step on seven images, with a backward pass per sample and literal prompt tokens."""
    vit, x, y = tiny_vit(), images(len(LABELS)), LABELS
    vit.load_state_dict(module.net.state_dict())
    p = {name: value.detach().clone().requires_grad_() for name, value in module.prompts.named_parameters()}
    weight, bias = (t.detach().clone().requires_grad_() for t in (vit.head.weight, vit.head.bias))

    query, tau = queries(), torch.tensor(usage) + 1
    distance = 1 - F.cosine_similarity(query[:, None], p["keys"], dim=-1)
    s = (distance * tau).argmin(dim=1)
    assert len(set(s.tolist())) == 2  # so that one entry is not used

    tokens = vit._pos_embed(vit.patch_embed(x))
    for layer, block in enumerate(vit.blocks):
        extra = []
        if layer in (0, 1):
            extra = [p["general"][layer].expand(len(x), -1, -1)]
        if layer in (2, 3, 4):
            extra = [p["experts"][s, layer - 2]]
        tokens = block(torch.cat([tokens, *extra], dim=1))[:, :17]
    f = vit.norm(tokens)[:, 0]
    mu = 2 * torch.sigmoid(p["mask"][s]) if use_mask else torch.ones(len(x), 10).double()

    def masked(features, factors, w):
        return (factors * (features @ w.T + bias)).masked_fill(~SEEN, -torch.inf)

    conflict = []
    losses = F.cross_entropy(masked(f.detach(), mu.detach(), weight), y, reduction="none")
    (batch,) = torch.autograd.grad(losses.mean(), weight, retain_graph=True)
    for loss, label in zip(losses, y, strict=True):
        (own,) = torch.autograd.grad(loss, weight, retain_graph=True)
        conflict.append(1 - F.cosine_similarity(own[label], batch[label], dim=0))
    factor = (1 - alpha) + alpha * torch.stack(conflict) ** gamma if use_gsf else torch.ones(len(x)).double()
    c = 1 - F.cosine_similarity(weight[y], f, dim=1).detach() + margin if use_afs else torch.ones(len(x)).double()

    logits = masked(f / c[:, None], mu, weight)
    if code:
        classification = (criterion(logits, y) * factor).mean()
    else:
        classification = torch.stack(
            [w * criterion(z[None], t[None]) for w, z, t in zip(factor, logits, y, strict=True)]
        ).mean()
    among = 1 - F.cosine_similarity(p["keys"][:, None], p["keys"], dim=-1)
    chosen = distance.gather(1, s[:, None]).squeeze(1)
    if code:
        pull, push = (chosen / tau[s][:, None]).exp().mean(), (among[s[:, None]] / tau[s][:, None]).exp().mean()
        prompt_loss = -(push / (pull + push) + 1e-6).log()
    else:
        pull, push = (chosen / tau[s]).exp(), (among[s] / tau[s][:, None]).exp().mean(dim=1)
        prompt_loss = -(push / (pull + push)).log().mean()
    wanted = {"head.weight": weight, "head.bias": bias, **p}
    total = classification + cvpt_weight * prompt_loss
    gradients = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    return {n: g for n, g in zip(wanted, gradients, strict=True) if g is not None}, factor


def gradients_of(module, labels=LABELS):
    module.zero_grad()
    module.training_step((images(len(LABELS)), labels), 0).backward()
    own = {f"head.{n}": p.grad for n, p in module.net.head.named_parameters()}
    return {**own, **{n: p.grad for n, p in module.prompts.named_parameters() if p.grad is not None}}


OPTIONS = [
    {},
    {"use_mask": False},
    {"use_afs": False},
    {"use_gsf": False},
    {"use_mask": False, "use_afs": False, "use_gsf": False},
    {"alpha": 1.0, "gamma": 0.7, "margin": 0.1, "cvpt_weight": 0.3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("variant", ["paper", "code"])
def test_a_step_has_the_gradients_of_the_method_written_out(options, variant):
    module = attached(variant=variant, **options)
    expected, factor = literal_gradients(module, code=variant == "code", **options)
    if "use_gsf" not in options:
        assert factor.max() - factor.min() > 0.2
    actual = gradients_of(module)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 1e-3
        assert_close(actual[name], gradient, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
    assert all(p.grad is None for n, p in module.net.named_parameters() if not n.startswith("head."))


def test_the_variants_differ():
    paper, code = (gradients_of(attached(variant=variant)) for variant in ("paper", "code"))
    for name in ("head.weight", "experts", "keys"):
        assert (paper[name] - code[name]).abs().max() > 1e-4, name


class Margin(TinyModule):
    """A loss of another kind, that is a mean over the samples, in a dictionary."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        return {"loss": F.multi_margin_loss(self(x)[:, :4], y.long(), margin=0.3)}


def test_any_loss_that_is_a_mean_is_weighed():
    module = attached(Margin())
    expected, factor = literal_gradients(
        module, criterion=lambda logits, y: F.multi_margin_loss(logits[:, :4], y, margin=0.3)
    )
    assert factor.max() - factor.min() > 0.2
    module.training_step((images(len(LABELS)), LABELS), 0)["loss"].backward()
    for name, gradient in expected.items():
        own = module.net.get_parameter(name) if name.startswith("head") else module.prompts.get_parameter(name)
        assert_close(own.grad, gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_any_integer_type(dtype):
    gradients = []
    for labels in (LABELS, LABELS.to(dtype)):
        module = attached(Margin())
        module.training_step((images(len(LABELS)), labels), 0)["loss"].backward()
        gradients.append([p.grad for p in module.parameters() if p.grad is not None])
    assert all(map(torch.equal, *gradients))


def test_alpha_0_is_no_weight():
    plain, weighed = gradients_of(attached(use_gsf=False)), gradients_of(attached(alpha=0))
    assert all(torch.equal(gradient, weighed[name]) for name, gradient in plain.items())


# ---------------------------------------------------------------------- predictions


def test_at_first_logits_are_the_heads_times_0_537883_and_unseen_classes_are_out():
    module, features = TinyModule(), []
    MVP(**SMALL).attach_once(module, INFO)
    module.on_task_start(task_of(INFO, 1))
    head = module.net.head
    head.register_forward_pre_hook(lambda _, args: features.append(args[0]))
    logits = module.eval()(images(5))
    expected = 0.537883 * F.linear(features[0], head.weight, head.bias)
    assert_close(logits[:, SEEN], expected[:, SEEN], rtol=1e-5, atol=1e-6)
    assert bool((logits[:, ~SEEN] < -500).all())
    assert bool((logits.softmax(1)[:, ~SEEN] == 0).all())


@pytest.mark.parametrize("options", [{"use_afs": False}, {"use_gsf": False}, {"margin": 2.0}, {"alpha": 0.0}], ids=str)
def test_scaling_and_weights_are_of_the_training_loss_alone(options):
    module, other = attached().eval(), attached(**options).eval()
    evaluated = other(images(5))
    assert torch.equal(module(images(5)), evaluated)
    assert torch.equal(module.train()(images(5)), evaluated)  # training mode, but no step
    labels = LABELS[:5]
    module.training_step((images(5), labels), 0)
    module.prompts.load_state_dict(other.prompts.state_dict())  # the counters moved
    assert torch.equal(module(images(5)), evaluated)
    assert torch.equal(module.eval()(images(5)), evaluated)


def test_without_its_parts_it_is_a_linear_probe_of_the_frozen_vit():
    plain = tiny_vit()
    module = attached(general_length=0, expert_length=0, use_mask=False, use_afs=False, use_gsf=False)
    assert_close(module.eval()(images(5))[:, SEEN], plain(images(5))[:, SEEN], rtol=0, atol=1e-10)
    features = plain.forward_head(plain.forward_features(images(len(LABELS))), pre_logits=True).detach()
    F.cross_entropy(plain.head(features).masked_fill(~SEEN, -torch.inf), LABELS).backward()
    gradients = gradients_of(module.train())
    assert_close(gradients["head.weight"], plain.head.weight.grad, rtol=0, atol=1e-10)
    assert_close(gradients["head.bias"], plain.head.bias.grad, rtol=0, atol=1e-10)
    assert set(gradients) == {"head.weight", "head.bias", "keys"}


def test_counters_grow_by_the_samples_of_every_step_and_by_nothing_else():
    module = attached(usage=(0, 0, 0))
    optimizer = train(module, (0, 1), steps=3)
    assert module.prompts.usage.sum() == 3 * 8
    before = module.prompts.usage.clone()
    module.eval()(images(9))
    module.train()(images(9))  # not a step
    module.on_task_end(task_of(INFO, 1))
    module.on_task_start(task_of(INFO, 2))
    assert torch.equal(module.prompts.usage, before)
    train(module, (4, 5), steps=1, optimizer=optimizer)
    assert module.prompts.usage.sum() == 4 * 8


def test_use_moves_the_selection_at_test_time():
    module = attached(usage=(0, 0, 0)).eval()
    before = module(images(20))
    module.prompts.usage[:] = torch.tensor([1000, 1000, 0])
    assert not torch.equal(module(images(20)), before)


def test_the_query_can_be_read_after_the_last_block():
    module, seen = attached(use_last_layer=True), []
    module.prompts.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    vit, tokens = tiny_vit(), []
    vit.blocks[5].register_forward_hook(lambda _, __, output: tokens.append(output[:, 0]))
    vit(images(3)), module.eval()(images(3))
    assert_close(seen[0], tokens[0], rtol=0, atol=1e-10)


# ---------------------------------------------------------------------- precision


def test_a_factor_of_0_makes_no_nan_of_a_masked_class():
    module = attached()
    module.prompts.mask.data[:] = -1e4
    logits = module.eval()(images(3))
    assert bool((logits[:, SEEN] == 0).all())
    assert bool((logits[:, ~SEEN] < -500).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_logits_masks_and_weights_in_32_bits(dtype):
    module, logits = attached(TinyModule().float()), []
    module.continual_head.register_forward_hook(lambda _, __, output: logits.append(output))
    module.prompts.mask.data[:] = -17  # below what float16 can tell from 0
    with torch.autocast("cpu", dtype):
        loss = module.training_step((images(len(LABELS)).float(), LABELS), 0)
    loss.backward()
    assert logits[0].dtype == torch.float32
    assert bool((logits[0][:, SEEN] != 0).all())
    for name, parameter in [*module.prompts.named_parameters(), *module.net.head.named_parameters()]:
        assert bool(parameter.grad.isfinite().all()), name


# ---------------------------------------------------------------------- what cannot be


class Twice(TinyModule):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(torch.cat([x, x])), torch.cat([y, y]))


def test_more_samples_than_labels_are_refused():
    with pytest.raises(ValueError, match=r"called with 14 samples, but the batch has 7 labels; .*`use_afs=False`"):
        gradients_of(attached(Twice()))
    assert gradients_of(attached(Twice(), use_afs=False, use_gsf=False))["mask"].abs().max() > 0


def test_a_head_that_is_called_apart_from_the_vit_is_refused():
    module = attached()
    with pytest.raises(ValueError, match=r"no pass of the ViT came before; .*`use_mask=False`"):
        module.net.head(torch.zeros(3, 48).double())


@pytest.mark.parametrize("targets", [F.one_hot(LABELS, 10).float(), LABELS[:, None], LABELS.double()])
def test_labels_must_be_one_integer_per_sample(targets):
    with pytest.raises(ValueError, match="MVP needs one integer label per sample"):
        gradients_of(attached(), targets)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variant": "official"}, '`variant` is \'official\'; give "paper" or "code"'),
        ({"alpha": 1.5}, "`alpha` is 1.5, .* a share in"),
        ({"margin": 0.0}, "`margin` is 0.0; .* a divisor above 0"),
        ({"gamma": -1}, "`gamma` is -1"),
        ({"general_layers": (0, 1), "expert_layers": (1, 2)}, "name at least one layer, each once"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        MVP(**options)


def test_a_vit_of_one_block_has_no_block_before_the_last():
    with pytest.raises(ValueError, match="read after block -2, but the ViT has 1 block"):
        MVP(general_layers=(0,), expert_layers=()).attach_once(TinyModule(depth=1), INFO)


def test_a_head_with_more_outputs_than_classes_has_a_factor_for_each():
    module = TinyModule(num_classes=13)
    MVP(**SMALL).attach_once(module, INFO)
    module.on_task_start(task_of(INFO, 0))
    assert module.prompts.mask.shape == (3, 13)
    assert module.eval()(images(2)).shape == (2, 13)


def test_a_copy_in_the_middle_of_training_is_apart():
    module = attached()
    twin = copy.deepcopy(module)
    gradients_of(module)
    assert twin.prompts.usage.tolist() == [0, 5, 2]
    assert module.prompts.usage.sum() == 14
    expected = gradients_of(attached())
    assert all(torch.equal(g, expected[n]) for n, g in gradients_of(twin).items())


class Inherits(ContinualMixin, TinyModule):
    """What a model author can do without the callback."""

    def __init__(self):
        super().__init__()
        self.configure_continual(INFO, train_mask="seen")
        torch.manual_seed(0)
        self.add_method("mvp", MVP(**SMALL, margin=0.2).build(self, INFO))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)


def test_an_author_may_inherit_the_step():
    results = []
    for module in (Inherits(), TinyModule()):
        if type(module) is TinyModule:
            torch.manual_seed(0)
            MVP(**SMALL, margin=0.2).attach_once(module, INFO)
        module.on_task_start(task_of(INFO, 1))
        results.append(gradients_of(module.train()))
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(gradient, results[1][name]) for name, gradient in results[0].items())
