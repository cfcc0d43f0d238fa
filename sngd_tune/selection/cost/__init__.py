"""What local Fisher settings cost on a device; `model` puts the parts together."""

from sngd_tune.selection.cost.cache import default_cache
from sngd_tune.selection.cost.model import CostModel, LayerCost, statistics_share
from sngd_tune.selection.cost.step import REFERENCE, PlainStep, StepCost

__all__ = ["REFERENCE", "CostModel", "LayerCost", "PlainStep", "StepCost", "default_cache", "statistics_share"]
