"""Explorers: small pages with knobs that need no kernel and no network."""

from ckutils.widgets.explorers import EXPLORERS, Explorer, explorer, explorer_html

__all__ = ["EXPLORERS", "Explorer", "explorer", "explorer_html"]
