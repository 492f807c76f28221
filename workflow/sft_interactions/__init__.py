"""AND-OR interactions between the words of a prompt, and how fine-tuning changes them.

The method of arXiv 2605.17967. The names below are the public interface; each is loaded when it is
first used, so that importing the package needs neither torch nor matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sft_interactions.version import __version__

if TYPE_CHECKING:
    from sft_interactions.analysis.dynamics import add_generalizability, classify
    from sft_interactions.analysis.metrics import compute_metrics
    from sft_interactions.analysis.salience import select_salient
    from sft_interactions.callback import InteractionCallback
    from sft_interactions.explanation import Explanation, explain
    from sft_interactions.extraction.program import Extraction, extract, reconstruct
    from sft_interactions.masking.log_odds import MaskedPrompt, log_odds, masked_log_odds
    from sft_interactions.masking.mask_embedding import make_mask_embedding
    from sft_interactions.models.loading import load_checkpoint

_MODULES = {
    "InteractionCallback": "callback",
    "Explanation": "explanation",
    "explain": "explanation",
    "Extraction": "extraction.program",
    "extract": "extraction.program",
    "reconstruct": "extraction.program",
    "MaskedPrompt": "masking.log_odds",
    "log_odds": "masking.log_odds",
    "masked_log_odds": "masking.log_odds",
    "make_mask_embedding": "masking.mask_embedding",
    "load_checkpoint": "models.loading",
    "select_salient": "analysis.salience",
    "classify": "analysis.dynamics",
    "add_generalizability": "analysis.dynamics",
    "compute_metrics": "analysis.metrics",
}

__all__ = [
    "Explanation",
    "Extraction",
    "InteractionCallback",
    "MaskedPrompt",
    "__version__",
    "add_generalizability",
    "classify",
    "compute_metrics",
    "explain",
    "extract",
    "load_checkpoint",
    "log_odds",
    "make_mask_embedding",
    "masked_log_odds",
    "reconstruct",
    "select_salient",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
