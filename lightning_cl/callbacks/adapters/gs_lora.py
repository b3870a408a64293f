"""GS-LoRA: classes are forgotten on request by low-rank updates of the feed-forward layers, in as few blocks as do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.adapters.linear_layers import linear_only
from lightning_cl.callbacks.arguments import at_least, pattern
from lightning_cl.callbacks.stream_kind import StreamKind
from lightning_cl.callbacks.taskwise import SeenClassesMethod
from lightning_cl.callbacks.unlearning.requests import ForgetRequests, seen_losses
from lightning_cl.nn.adapters import Adapters, LoRA, block_mlps, inject
from lightning_cl.nn.adapters.sites import ending, exactly
from lightning_cl.nn.guard import whole
from lightning_cl.nn.losses import group_norms
from lightning_cl.nn.weights import trained
from lightning_cl.training import Step
from lightning_cl.training.step_seed import generator_of


class ForgettingUpdates(ForgetRequests):
    """``A`` and ``B`` of the feed-forward layers, which alone learn while something is to be forgotten."""

    def __init__(self, adapters: Adapters, method: GSLoRA) -> None:
        super().__init__()
        self.adapters, self.method = adapters, method

    @torch.no_grad()
    def start_task(self, module: Any, task: Any) -> None:
        """Merge the last request's update; the next begins with a fresh ``A``, alike everywhere, and ``B = 0``."""
        super().start_task(module, task)
        generator = generator_of(module, 0x65A, task.index)
        for name in self.adapters.names if task.forgets else ():
            bank = self.adapters.bank(name)
            assert isinstance(bank, LoRA)
            module.get_submodule(name).weight += bank.delta(0)
            edge = bank.down.shape[-1] ** -0.5  # Kaiming's for a linear layer, a = sqrt(5)
            bank.down.copy_(edge * (2 * torch.rand(bank.down.shape, generator=generator) - 1))
            bank.up.zero_()

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``CE(retained) + beta relu(bound - CE(to be forgotten)) + alpha sum_blocks |A, B|``; none while learning."""
        if not len(self.asked):
            return {}
        losses, asked = seen_losses(step, step.raw_logits), self.is_asked(step)
        blocks = group_norms(self.adapters.named_parameters(), lambda name: name.rpartition("/")[0])
        return {
            "gs_lora_retain": step.mean_over(~asked, losses),
            "gs_lora_forget": self.method.beta * self.pushed(step, losses, self.method.bound),
            "gs_lora_blocks": self.method.alpha * blocks.sum(),
        }

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """What does not learn in this task counts neither in a norm of the gradient nor in an optimiser's moments."""
        for parameter in self._idle(module):
            parameter.grad = None

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """All but ``A`` and ``B`` while something is to be forgotten, else these."""
        return whole(self._idle(module))

    def _idle(self, module: Any) -> list[nn.Parameter]:
        own = {id(p) for p in self.adapters.parameters()}
        forgets = len(self.asked) > 0
        return [p for p in trained(module).values() if (id(p) in own) != forgets]


@dataclass(eq=False)
class GSLoRA(SeenClassesMethod):
    r"""Continual forgetting with group-sparse LoRA (GS-LoRA; Zhao et al., CVPR 2024, arXiv:2403.11530).

    On a ``Forget`` stream. While classes are learned it is plain training. In the task of a request the first and last
    linear layer of every block's MLP answer ``W x + B A x / rank``, and ``A`` and ``B`` alone are trained, on ``CE(D_r)
    + beta relu(bound - CE(D_f)) + alpha sum_blocks |(A_1, B_1, A_2, B_2)|_2``: ``D_f`` are the batch's samples of the
    classes to be forgotten, ``D_r`` the retained ones, among the seen classes; above the bound nothing is pushed
    further. It takes the place of the user's loss, whose value is still what ``training_step`` logs. The next request
    merges ``B A`` into ``W`` and begins with a fresh ``A`` and ``B = 0``. All else, the head too, stays bit for bit
    (running statistics of batch norm aside).
    The official code pairs each batch of one set with one of the other and draws ``A`` narrower after the first
    request; here they come mixed, as the stream shuffles them. :class:`GSLoRAPlusPlus` adds prototypes and an average.

    Needs task boundaries and the retained samples that the stream lets it read; no further pass and no copy but one of
    what stays. Works on networks with MLPs in numbered blocks: ViT, Eva, Swin and ConvNeXt of timm, open_clip,
    torchvision, Hugging Face.

    Args:
        rank: Rows of ``A``, at least 1.
        bound: Mean cross-entropy in nats up to which classes are pushed out, at least 0. For a linear head ``ln C`` is
            an answer by chance; the paper's 105 to 110 are for logits with a scale of 64.
        beta: Weight of forgetting, at least 0. The paper's are 0.2 to 0.25.
        alpha: Weight of the group norms, at least 0; the paper's.
        at: Regular expression of the ends of names of linear layers; layers of one parent are a block. ``None``: those
            of the MLPs.

    Raises:
        ValueError: If a number is out of its range or ``at`` no regular expression; when attached, if there is no such
            layer; in ``setup``, on a stream that asks to forget nothing.
    """

    state_key: ClassVar[str] = "lightning_cl.GSLoRA"
    needs_forward: ClassVar[bool] = False
    adds_loss: ClassVar[bool] = True
    adapts_backbone: ClassVar[bool] = True
    stream_kind: ClassVar[StreamKind] = "forget"
    works_on: ClassVar[str] = "networks with MLPs in numbered blocks"
    small: ClassVar[dict[str, Any]] = {"rank": 2}

    rank: int = at_least(1, default=8)
    bound: float = at_least(0, default=10.0)
    beta: float = at_least(0, default=0.2)
    alpha: float = at_least(0, default=1e-4)
    at: str | None = pattern(default=None)

    def build(self, pl_module: Any, info: Any) -> ForgettingUpdates:
        """``A`` and ``B`` for the linear layers of every MLP."""

        def make(layer: nn.Module) -> LoRA:
            linear = linear_only(layer, self.at, "GSLoRA")
            return LoRA(1, linear.in_features, linear.out_features, self.rank, 1 / self.rank)

        mlps = block_mlps(pl_module) if self.at is None else []
        if self.at is None and not mlps:
            raise ValueError(
                f"no MLP was found in the numbered blocks of this {type(pl_module).__name__}; name its linear "
                "layers with `at`, a regular expression."
            )
        names = [f"{mlp}.{name}" for mlp in mlps for name in _ends(pl_module.get_submodule(mlp))]
        pattern = exactly(names) if self.at is None else ending(self.at)
        adapters = inject(pl_module, make, at=pattern, site="gs_lora")
        return self.forgetting(pl_module, info, adapters)

    def forgetting(self, pl_module: Any, info: Any, adapters: Adapters) -> ForgettingUpdates:
        """What learns the updates."""
        return ForgettingUpdates(adapters, self)


def _ends(mlp: nn.Module) -> list[str]:
    """Names of the first and the last linear layer of an MLP."""
    linears = [name for name, child in mlp.named_children() if isinstance(child, nn.Linear)]
    return [linears[0], linears[-1]]
