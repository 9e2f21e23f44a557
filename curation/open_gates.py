"""Gates that stand open in a run: bounds over what nobody measures, since weights are absent."""

from __future__ import annotations

from collections.abc import Collection

from reelmill.curation.recipe import Recipe
from reelmill.curation.stage import Stage


def deciding(stage: Stage) -> list[str]:
    """Names of the bounds by which a stage decides."""
    return [
        name for name, bound in stage.bounds().items() if bound.fact and bound.value is not None
    ]


def open_gates(recipe: Recipe, absent: Collection[str]) -> list[str]:
    """What a recipe does not decide without the weights `absent`, a sentence for each stage.

    Of stages that want the weights themselves, and of those that need what these do not measure.
    """
    told: list[str] = []
    lost: dict[str, str] = {}
    for stage in recipe.stages:
        missing = [name for name in stage.resources.weights if name in absent]
        bounds = ", ".join(deciding(stage))
        owners = sorted({lost[name] for name in stage.needs if name in lost})
        if missing:
            lost |= {fact.name: stage.name for fact in stage.adds}
            if bounds:
                told.append(
                    f"{stage.name} decides nothing on any {recipe.kind} by {bounds}: without its "
                    f"weights {', '.join(map(repr, missing))} it neither passes nor rejects."
                )
        elif owners and bounds:
            told.append(
                f"{stage.name} decides by {bounds} as far as it can: it needs what "
                f"{', '.join(owners)}, without weights, does not measure of any {recipe.kind}."
            )
    return told
