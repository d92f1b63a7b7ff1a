"""Market products as callers read them: dicts in the shape of ProductView and ExplainProductView."""

from __future__ import annotations

from typing import Any

from controller.explain.products import FedProduct, ProductCopy, ProductExplanation
from controller.gateway.agents.views import fits_view


def product_view(product: FedProduct) -> dict[str, Any]:
    """A product that is fed, or should be."""
    return {
        "name": product.name,
        "source": product.source,
        "copies": product.copies,
        "missing": product.missing,
        "is_good": product.is_good,
        "nodes": [_copy_view(copy) for copy in product.nodes],
    }


def product_explanation_view(answer: ProductExplanation) -> dict[str, Any]:
    """Why a product is fed where it is."""
    product = answer.product
    return {
        "product": product.name,
        "because": answer.because,
        "source": product.source,
        "copies": product.copies,
        "missing": product.missing,
        "copies_now": [_copy_view(copy) for copy in product.nodes],
        "nodes": fits_view(answer.nodes),
    }


def _copy_view(copy: ProductCopy) -> dict[str, Any]:
    return {
        "node": copy.node,
        "state": copy.state,
        "reason": copy.reason,
        "is_assigned": copy.is_assigned,
        "is_leaving": copy.is_leaving,
    }
