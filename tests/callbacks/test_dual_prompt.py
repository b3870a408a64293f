from __future__ import annotations

import pytest
import torch
from tiny import TinyModule, images, stream_info, task_of

from lightning_cl.callbacks import DualPrompt

from .vit_base import num_trained

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


@pytest.mark.parametrize(
    ("options", "published"),
    [
        ({"general_length": 3, "expert_length": 10, "shared_keys": False}, 646_856),  # CODA-Prompt's code
        ({}, 1_098_440),  # the authors' code, ImageNet-R
        ({"shared_keys": False}, 1_113_800),  # OVOR's code
    ],
    ids=["coda-prompt", "authors", "ovor"],
)
def test_the_number_of_trained_parameters_is_the_published_one(options, published):
    assert num_trained(DualPrompt(**options), 200) == published


def test_images_find_the_expert_of_their_task():
    """Two tasks whose images are of two kinds, as their queries are."""
    torch.manual_seed(0)
    info, module = stream_info(2), TinyModule()
    DualPrompt(2, 2, (0,), (1, 2)).attach_once(module, info)
    kinds = 2 * images(2, seed=7)
    optimizer = module.configure_optimizers()
    for index in range(2):
        module.on_task_start(task_of(info, index))
        labels = torch.tensor(info.classes_per_task[index]).repeat(3)
        module.train()
        for step in range(15):
            optimizer.zero_grad()
            module.training_step((kinds[index] + images(len(labels), seed=step), labels), step).backward()
            optimizer.step()
    queries = []
    module.prompts.register_forward_pre_hook(lambda _, args: queries.append(args[0]))
    module.eval()(torch.cat([kinds[0] + images(50, seed=91), kinds[1] + images(50, seed=92)]))
    found = module.prompts.nearest(queries[0])[0]
    assert (found == torch.tensor([0, 1]).repeat_interleave(50)).double().mean() > 0.95


def test_a_layer_of_two_kinds_is_refused():
    with pytest.raises(ValueError, match="name at least one layer, each once"):
        DualPrompt(general_layers=(0, 1), expert_layers=(1, 2))
