"""Frozen copies of the weights before a network's head, which answer for the present input beside the live ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_cl.nn.extension import extend
from lightning_cl.nn.head_layer import pooled
from lightning_cl.nn.substitution import batch_norms
from lightning_cl.nn.weights import NamedTensors
from lightning_cl.training.batch import call_with
from lightning_cl.training.evaluation_mode import evaluating
from lightning_cl.training.find_modules import enclosing
from lightning_cl.training.shared_outputs import SharedOutputs
from lightning_cl.training.teacher import weights_and_statistics


class _AtHead(Exception):
    """Ends a pass where the head is reached, so that nothing behind it sees a second pass."""


class NetworkCall(NamedTuple):
    """A call of a network that is being made.

    Attributes:
        path: Dotted path of the network in the LightningModule.
        repeat: Makes the same call of another function.
    """

    path: str
    repeat: Callable[[Callable[..., Any]], Any]


class TrunkNetwork(nn.Module):
    """Mixin for a live network that holds the head: copies of its weights can answer while it is called."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As before; what it is given is known in the meantime."""
        trunks, path = self.__dict__["_answers_with"]
        with trunks.called(NetworkCall(path, lambda function: function(*args, **kwargs))):
            return super().forward(*args, **kwargs)


class Trunks(nn.Module):
    """Copies of what is trained before the head, one after another; each tells what it would give the head.

    They are buffers, so they are in no optimiser and DDP waits for no gradient of theirs. A copy is made when it is
    needed; a checkpoint brings as many as it has into a fresh module.

    Args:
        module: A LightningModule with a head; the networks around the head are extended.
        stage: Dotted path of the first part that a copy has of its own: what the parts before it answered is taken from
            the live network, with its gradient. ``None``: copies are of all, and answer in eval mode without gradient.
        who: The method, for errors.

    Raises:
        ValueError: If nothing is trained before the head.
    """

    place: Tensor

    def __init__(self, module: Any, stage: str | None = None, who: str = "this method") -> None:
        super().__init__()
        self.who, self.passing = who, False
        self.given: Tensor | None = None
        self.call: NetworkCall | None = None
        self.copies = nn.ModuleList()
        self.register_buffer("place", torch.empty(0), persistent=False)
        self.shared = None if stage is None else SharedOutputs(module, stage)
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]
        if not self.weights(module):
            raise ValueError(
                f"{type(module).__name__} trains nothing before its head, so {who} has nothing to copy for a task; "
                "train the network, or use a method for frozen features."
            )
        module.continual_head.register_forward_pre_hook(self._stop)
        path = module.continual.head_path
        for depth, network in enumerate(enclosing(module, path), 1):
            extend(network, TrunkNetwork)
            network.__dict__["_answers_with"] = (self, ".".join(path.split(".")[:-depth]))

    def __len__(self) -> int:
        """How many copies there are."""
        return len(self.copies)

    def weights(self, module: Any) -> dict[str, Tensor]:
        """What a copy holds, by name: trained weights and statistics before the head, from ``stage`` on."""
        head = {id(p) for p in module.continual_head.parameters()}
        known = {name: t for name, t in weights_and_statistics(module).items() if id(t) not in head}
        own = {id(p) for part in module.continual.parts.values() for p in part.parameters()}
        known = {name: t for name, t in known.items() if id(t) not in own}
        return known if self.shared is None else {n: t for n, t in known.items() if self.shared.is_behind(n)}

    def add(self, module: Any) -> None:
        """Copy the weights as they are now."""
        self.copies.append(NamedTensors({n: t.detach().clone() for n, t in self.weights(module).items()}))

    def take(self, module: Any, index: int) -> None:
        """Copy the weights as they are now in the place of a copy, or as the next one."""
        if index == len(self):
            self.add(module)
            return
        weights = self.weights(module)
        with torch.no_grad():
            for name, kept in self.copies[index].items():  # type: ignore[operator]
                kept.copy_(weights[name])

    def clear(self) -> None:
        """Give all copies up."""
        self.copies = nn.ModuleList()

    def put_back(self, module: Any, index: int) -> None:
        """Give the live network the weights of a copy, and the statistics of its batch norms."""
        weights, norms = self.weights(module), batch_norms(module)
        with torch.no_grad():
            for name, value in self.copies[index].items():  # type: ignore[operator]
                if isinstance(weights[name], nn.Parameter) or name.rpartition(".")[0] in norms:
                    weights[name].copy_(value)

    @contextmanager
    def called(self, call: NetworkCall) -> Iterator[None]:
        """A network is called; of those around each other the outermost counts."""
        if self.call is not None or not len(self):
            yield
            return
        self.call = call
        if self.shared is not None:
            self.shared.record()
        try:
            yield
        finally:
            self.call = None
            if self.shared is not None:
                self.shared.forget()

    def features(self, module: Any) -> list[Tensor]:
        """What every copy gives the head for the input of the present call: ``(B, D)`` each, oldest first.

        Raises:
            ValueError: If weights lie outside of the network that was called, or none was called.
        """
        call = self.call or self._call_of_step(module)
        prefix = f"{call.path}." if call.path else ""
        outside = [n for copy in self.copies for n in copy.names if not n.startswith(prefix)]  # type: ignore[union-attr]
        if outside:
            raise ValueError(
                f"{self.who} asks earlier copies of the weights, but `{call.path}` was called by itself and "
                f"`{outside[0]}`, which is trained, too, lies outside of it; call the module's `forward`."
            )
        network = module.get_submodule(call.path)
        gradient = self.shared is not None and torch.is_grad_enabled()
        with evaluating(network), torch.set_grad_enabled(gradient), module.recorded():
            return [self._pass(network, call, prefix, copy) for copy in self.copies]

    def _pass(self, network: nn.Module, call: NetworkCall, prefix: str, copy: Any) -> Tensor:
        weights = {name.removeprefix(prefix): value for name, value in copy.items()}
        before, self.call, self.passing = self.call, call, True
        if self.shared is not None:
            self.shared.replay()
        try:
            with suppress(_AtHead):
                call.repeat(lambda *args, **kwargs: functional_call(network, weights, args, kwargs))
        finally:
            self.call, self.passing, given, self.given = before, False, self.given, None
        if given is None:
            raise ValueError(f"`{call.path}` did not call the head when {self.who} called it again for the same input.")
        return given.flatten(0, 1) if given.ndim == 3 else given.flatten(1)

    def _call_of_step(self, module: Any) -> NetworkCall:
        step = module.continual.step
        if step is None or self.shared is not None:
            raise ValueError(
                f"{self.who} asks earlier copies of the weights, but the head `{module.continual.head_path}` was "
                "called outside of any network that holds it; call the module's `forward`."
            )
        return NetworkCall("", lambda function: call_with(function, step.inputs))

    def _stop(self, head: nn.Module, args: tuple[Any, ...]) -> None:
        if self.passing:
            self.given = pooled(head, args[0])
            if not torch.compiler.is_compiling():  # a graph is made of whole calls
                raise _AtHead


def _make_room(trunks: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """A hook before a state is loaded: as many copies as it has."""
    assert isinstance(trunks, Trunks)
    saved: dict[str, dict[str, Tensor]] = {}
    for key, value in state_dict.items():
        if key.startswith(f"{prefix}copies."):
            index, _dot, name = key.removeprefix(f"{prefix}copies.").partition(".")
            saved.setdefault(index, {})[name.replace("/", ".")] = torch.empty_like(value, device=trunks.place.device)
    trunks.copies = nn.ModuleList(NamedTensors(saved[index]) for index in sorted(saved, key=int))
