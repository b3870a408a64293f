"""A pass before the pass: what a frozen network gives its head, by which a method chooses what it adds for a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from lightning_cl.nn.adapters import Adapters, Mixture
from lightning_cl.nn.extension import extend
from lightning_cl.training.batch import call_with
from lightning_cl.training.evaluation_mode import evaluating
from lightning_cl.training.find_modules import enclosing
from lightning_cl.training.method_module import MethodModule


class QueryingMethod(MethodModule):
    """Asks the network without what the method adds for the features of the samples, before it answers.

    Queries are what reaches the head in evaluation mode, without gradient. Call :meth:`ask_before` once.

    Args:
        adapters: A pool of updates.
        mixture: What is chosen of them for each sample.
    """

    asked: bool = False  #: Whether a network is being called.
    query: Tensor | None = None  #: ``(B, D)`` of the samples that pass.

    def __init__(self, adapters: Adapters, mixture: Mixture) -> None:
        super().__init__()
        self.adapters, self.mixture = adapters, mixture

    def ask_before(self, module: Any) -> None:
        """From here on every call of a network around the head is preceded by a query pass."""
        for network in enclosing(module, module.continual.head_path):
            extend(network, QueriedNetwork)
            network.__dict__["_queried_by"] = (self, module)

    def choose(self, query: Tensor) -> None:
        """Choose what is added for ``(B, D)`` queries."""
        raise NotImplementedError

    def choose_nothing(self) -> None:
        """The frozen network answers from here on."""
        self.mixture.set(None, None)

    @contextmanager
    def answering(self, module: Any, call: Callable[[], Any]) -> Iterator[None]:
        """Choose for the samples of a call; of networks around each other the outermost counts."""
        if self.asked:
            yield
            return
        self.asked = True
        try:
            self.choose_nothing()
            with evaluating(module), module.recorded(raw=True) as calls:
                call()
            self.query = calls[-1].features.detach()
            self.choose(self.query)
            yield
        finally:
            self.choose_nothing()
            self.asked = False

    def query_of(self, module: Any, inputs: Any) -> Tensor:
        """``(B, D)`` queries of inputs, as the module takes them."""
        call_with(module, inputs)
        assert self.query is not None, "the module's `forward` does not call a network around the head"
        return self.query


class QueriedNetwork(nn.Module):
    """Mixin for a live network around the head; :meth:`QueryingMethod.ask_before` sets it up."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Ask, choose, and answer."""
        method, module = self.__dict__["_queried_by"]
        own = super().forward
        with method.answering(module, partial(own, *args, **kwargs)):
            return own(*args, **kwargs)
