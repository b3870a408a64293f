from __future__ import annotations

import pytest
import torch
from tiny import TinyModule, images, stream_info, task_of, train

from lightning_cl.callbacks import OnePrompt

from .vit_base import num_trained

INFO = stream_info(5)


def test_the_number_of_trained_parameters_is_the_published_one():
    assert num_trained(OnePrompt(), 200) == 261_320


def test_rows_learn_on_in_every_task_and_start_where_they_were():
    module = TinyModule()
    OnePrompt((0, 2), 2).attach_once(module, INFO)
    optimizer = module.configure_optimizers()
    for index in range(3):
        before = [p.detach().clone() for p in module.prompts.parameters()]
        module.on_task_start(task_of(INFO, index))
        assert all(torch.equal(p, was) for p, was in zip(module.prompts.parameters(), before, strict=True))
        train(module, INFO.classes_per_task[index], optimizer=optimizer)
        assert all((p != was).any() for p, was in zip(module.prompts.parameters(), before, strict=True))


def test_all_images_share_one_prefix():
    module = TinyModule()
    OnePrompt((0, 2), 2).attach_once(module, INFO)
    given = []
    module.prompts.register_forward_hook(lambda _, args, prompts: given.append((args, prompts)))
    module.eval()(images(3))
    ((query,), prompts) = given[0]
    assert query is None
    assert {len(prefix.key) for prefix in prompts.prefixes.values()} == {1}
    assert len(given) == 1


def test_nothing_is_cached():  # there is no query
    module = TinyModule()
    OnePrompt((0,), 2).attach_once(module, INFO)
    assert module.continual.parts["oneprompt"].cache_queries is False


@pytest.mark.parametrize("lengths", [0, (5, 5)])
def test_lengths_that_do_not_fit(lengths):
    with pytest.raises(ValueError, match="give one number of rows, or one per layer, each at least 1"):
        OnePrompt((0,), lengths).attach_once(TinyModule(), INFO)
