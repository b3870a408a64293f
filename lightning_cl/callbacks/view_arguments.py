"""Arguments of methods that compare an image with a second view of it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from lightning_cl.callbacks.arguments import above, at_least, fraction
from lightning_cl.training.contrast import View


@dataclass(eq=False)
class ViewArguments:
    """How second views of images are drawn.

    Args:
        least_area: Smallest share of an image in its second view, in (0, 1].
        flip: Whether second views may be mirrored.
        jitter: Of contrast and brightness in second views, at least 0.
        gray: Share of gray second views, in [0, 1].
    """

    _: KW_ONLY
    least_area: float = fraction(above(0, default=0.2))
    flip: bool = True
    jitter: float = at_least(0, default=0.4)
    gray: float = fraction(default=0.2)

    @property
    def view(self) -> View:
        """How a second view differs from the first."""
        return View(self.least_area, self.flip, self.jitter, self.gray)
