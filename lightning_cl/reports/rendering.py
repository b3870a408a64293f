"""Render a template of the folder ``templates``."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """The text of a template; in ``.html`` everything that is not markup of the template is escaped.

    Args:
        template: Name without the folder and ``.j2``.
        filters: What the template calls after a bar, and, where the name begins with ``is_``, after ``is``.
        **values: What the template names.
    """
    is_page = template.endswith(".html")
    environment = Environment(
        loader=PackageLoader("lightning_cl.reports"),
        autoescape=is_page,
        finalize=_escaped if is_page else None,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= filters
    environment.tests |= {name: test for name, test in filters.items() if name.startswith("is_")}
    return environment.get_template(f"{template}.j2").render(**values)


def _escaped(value: Any) -> Any:
    """As `html.escape` writes it: jinja2 writes quotes as numbers."""
    return value if hasattr(value, "__html__") else Markup(html.escape(str(value)))
