"""Serving exported recommenders with onnxruntime and numpy: no PyTorch anywhere.

from genrec_runtime import Recommender

recommender = Recommender.load("store/current")
answer = recommender.recommend([["85123A", "71053"], ["22423"]], k=10)
"""

from genrec.histories import ItemIds
from genrec_runtime.answers import Recommendations
from genrec_runtime.device import DeviceReport
from genrec_runtime.errors import (
    BundleCorrupt,
    BundleError,
    BundleNotFound,
    BundleVersionError,
    DeviceUnavailable,
    GenrecError,
    InferenceError,
    InputError,
    Unsupported,
)
from genrec_runtime.module import Module, load
from genrec_runtime.recommender import Recommender
from genrec_runtime.verify import verify

__all__ = [
    "BundleCorrupt",
    "BundleError",
    "BundleNotFound",
    "BundleVersionError",
    "DeviceReport",
    "DeviceUnavailable",
    "GenrecError",
    "InferenceError",
    "InputError",
    "ItemIds",
    "Module",
    "Recommendations",
    "Recommender",
    "Unsupported",
    "load",
    "verify",
]
