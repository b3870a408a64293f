"""Choose what to learn next by learning progress: where a return has changed most lately."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import mix_seed


class ALPGMM:
    """Samples task parameters where the absolute learning progress is high (ALP-GMM, arXiv:1910.07224).

    Ask :meth:`sample` for a point of a box, train on its task, and :meth:`update` with the return. The progress of an
    episode is ``|r - r'|``, ``r'`` the return of the nearest earlier point. After every ``window`` episodes Gaussian
    mixtures are fitted to points and progress of the last ``window``, of 2 to ``components`` Gaussians, and the one of
    the lowest AIC is kept. Then a point is uniform with probability ``explore``, else drawn from a Gaussian that is
    chosen with a probability proportional to its mean progress. Until the first fit all points are uniform.

    Every draw depends on the seed and the number of draws before it only, so a sampler that was saved goes on with the
    same points. Where a choice is among tasks and not in a box, see :func:`progress_shares`.

    Args:
        low: Lower bounds, one for each parameter.
        high: Upper bounds, above the lower ones.
        window: Episodes of a fit and from one fit to the next, more than ``components``; 250 in the released code.
        components: Most Gaussians, at least 2; 10 in the released code.
        explore: Share of uniform points, in [0, 1]; 0.2 in the released code.
        seed: Of all draws and fits.

    Raises:
        ValueError: If the bounds or a number are out of their range.
    """

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        window: int = 250,
        components: int = 10,
        explore: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.low, self.high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
        if self.low.ndim != 1 or self.low.shape != self.high.shape or not (self.low < self.high).all():
            raise ValueError(f"the bounds are {low} and {high}; give two lists of one length, `low` below `high`.")
        if components < 2 or window <= components or not 0 <= explore <= 1:
            raise ValueError(
                f"{window=}, {components=}, {explore=}; give at least 2 components, a larger window, and a share in "
                "[0, 1]."
            )
        self.window, self.components, self.explore, self.seed = window, components, explore, seed
        self.drawn = 0
        #: How often mixtures were fitted.
        self.fits = 0
        self._points, self._returns = list[list[float]](), list[float]()
        self._recent: deque[list[float]] = deque(maxlen=window)  # points with their progress
        self._mixture: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None  # means and covariances

    def sample(self) -> list[float]:
        """The next point."""
        generator = np.random.RandomState(mix_seed(self.seed, 0xA19, self.drawn) % 2**32)
        self.drawn += 1
        if self._mixture is None or generator.random_sample() < self.explore:
            return self._listed(generator.uniform(self.low, self.high))
        means, covariances = self._mixture
        shares = np.clip(means[:, -1], 0, None)
        total = shares.sum()
        at = generator.choice(len(means), p=shares / total if total > 0 else None)
        drawn = generator.multivariate_normal(means[at, :-1], covariances[at, :-1, :-1])
        return self._listed(np.clip(drawn, self.low, self.high))

    def update(self, point: Sequence[float], value: float) -> None:
        """Note the return of an episode, and fit if it is time.

        Args:
            point: Its task's parameters.
            value: Its return, on any scale.
        """
        near = np.asarray(point, dtype=float)
        progress = 0.0
        if len(self._points) > 5:
            at = int(np.square(np.asarray(self._points) - near).sum(1).argmin())
            progress = abs(value - self._returns[at])
        self._points.append(self._listed(near))
        self._returns.append(float(value))
        self._recent.append([*self._listed(near), progress])
        if len(self._points) % self.window == 0:
            self._fit()

    def _fit(self) -> None:
        from sklearn.mixture import GaussianMixture  # takes a second to import

        rows = np.asarray(self._recent)
        seed = mix_seed(self.seed, 0xF17, self.fits) % 2**32
        fitted = [GaussianMixture(k, random_state=seed).fit(rows) for k in range(2, self.components + 1)]
        best = fitted[int(np.argmin([mixture.aic(rows) for mixture in fitted]))]
        self._mixture, self.fits = (best.means_, best.covariances_), self.fits + 1

    def _listed(self, values: np.ndarray[Any, Any]) -> list[float]:
        return [float(value) for value in values]

    def state_dict(self) -> dict[str, Any]:
        """All episodes and the mixture, in plain values and tensors."""
        mixture = None if self._mixture is None else [torch.from_numpy(part.copy()) for part in self._mixture]
        episodes = {"points": [*self._points], "returns": [*self._returns], "recent": [*self._recent]}
        return {"version": 1, "drawn": self.drawn, "fits": self.fits, "mixture": mixture, **episodes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on."""
        self.drawn, self.fits = int(state_dict["drawn"]), int(state_dict["fits"])
        self._points, self._returns = [*state_dict["points"]], [*state_dict["returns"]]
        self._recent = deque(state_dict["recent"], maxlen=self.window)
        found = state_dict["mixture"]
        self._mixture = None if found is None else (found[0].numpy(), found[1].numpy())


def progress_shares(values: Tensor, lag: int = 10, explore: float = 0.2) -> Tensor:
    """``(T,)`` float64 probabilities of training on each of ``T`` tasks next, by absolute learning progress.

    ``explore / T`` for each, and the rest in proportion to ``|now - lag observations ago|``; the same for all while
    none makes progress. What ALP-GMM does in a box, for classes, tasks of a curriculum, or shares of replay.

    Args:
        values: ``(E, T)`` accuracies, a row for each evaluation, the last one last; of fewer than ``lag + 1`` rows the
            first is compared with; NaN: not evaluated, no progress.
        lag: At least 1.
        explore: In [0, 1].

    Raises:
        ValueError: If there is no row, or a number is out of its range.
    """
    if not len(values) or lag < 1 or not 0 <= explore <= 1:
        raise ValueError(
            f"{len(values)} evaluations, {lag=}, {explore=}; give at least one, a lag of at least 1, and a share in "
            "[0, 1]."
        )
    progress = (values[-1] - values[max(len(values) - 1 - lag, 0)]).double().abs().nan_to_num(nan=0.0)
    even = torch.full_like(progress, 1 / len(progress))
    total = progress.sum()
    return explore * even + (1 - explore) * (progress / total if float(total) else even)
