"""Steps in which the class head learns alone, whatever else would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lightning_cl.training.loss_terms import plus, zero_through
from lightning_cl.training.step import Step
from lightning_cl.training.trained_body import trained_body


@contextmanager
def detached_features(module: Any) -> Iterator[None]:
    """Cut what the head is given off from the graph, so that backward passes end there."""
    hook = module.continual_head.register_forward_pre_hook(_detach)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def idle_in_eval_mode(module: Any) -> Iterator[None]:
    """Set evaluation mode in all parts of the user's network but the head, so that norms and dropout rest, too."""
    kept = {module, *module.continual_head.modules(), *module.continual.modules()}
    parts = [part for part in module.modules() if part.training and part not in kept]
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part in parts:
            part.training = True


def head_only_step(step: Step) -> Any:
    """Make the user's step on features that are cut off from the graph; then call :func:`drop_idle_gradients`."""
    with detached_features(step.module):
        return with_idle_parameters(step.module, step.users_step())


def with_idle_parameters(module: Any, output: Any) -> Any:
    """What a training step returned, with a zero for what does not learn: DDP waits for a gradient of everything."""
    if module.trainer.world_size == 1 or output is None:
        return output
    return plus(output, zero_through(idle_parameters(module), module.device))


def drop_idle_gradients(module: Any) -> None:
    """Keep all but the head out of an optimiser's step; its states stay as they are, too."""
    for parameter in idle_parameters(module):
        parameter.grad = None


def idle_parameters(module: Any) -> list[nn.Parameter]:
    """Trainable parameters that are not the head's."""
    return list(trained_body(module).values())


def _detach(head: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (given[0].detach(), *given[1:])
