"""Models, limits and prices: one data package without I/O, imported by gateway, storage and generator."""

from nanobatch_catalog.models import CATALOG_DATE, Model, Price, find_model, lifecycle_warnings, list_models
from nanobatch_catalog.prices import (
    TokenUsage,
    list_price_micros,
    output_token_limit,
    usage_cost_micros,
    worst_case_micros,
)

__all__ = [
    "CATALOG_DATE",
    "Model",
    "Price",
    "TokenUsage",
    "find_model",
    "lifecycle_warnings",
    "list_models",
    "list_price_micros",
    "output_token_limit",
    "usage_cost_micros",
    "worst_case_micros",
]
