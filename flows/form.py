"""Descriptions of parameters, where Prefect's forms look for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from pydantic.fields import FieldInfo

F = TypeVar("F", bound=Callable[..., Any])


def form(function: F) -> F:
    """Writes the descriptions of `Annotated[..., Field(description=...)]` into the docstring.

    Prefect reads types and limits of parameters from annotations, but descriptions from the
    docstring's `Args:` alone. Goes under `@flow`. Raises TypeError for a parameter without one.
    """
    hints = get_type_hints(function, include_extras=True)
    lines = []
    for name in inspect.signature(function).parameters:
        fields = [m for m in getattr(hints[name], "__metadata__", ()) if isinstance(m, FieldInfo)]
        if not fields or not fields[0].description:
            raise TypeError(f"{function.__name__}: parameter {name} has no description")
        lines.append(f"    {name}: {fields[0].description}")
    doc = inspect.cleandoc(function.__doc__ or "")
    function.__doc__ = "\n".join((doc, "", "Args:", *lines))
    return function
