"""Serving exported recommenders with onnxruntime and numpy: no PyTorch anywhere.

from genrec_runtime import Recommender

recommender = Recommender.load("store/current")
answer = recommender.recommend([["85123A", "71053"], ["22423"]], k=10)
"""

import importlib
from typing import TYPE_CHECKING, Any

from genrec.histories import ItemIds
from genrec_runtime.answers import Recommendations
from genrec_runtime.device import DeviceReport
from genrec_runtime.errors import (
    BundleCorrupt,
    BundleError,
    BundleNotFound,
    BundleVersionError,
    Closed,
    DeadlineExceeded,
    DeviceUnavailable,
    ForkedProcessError,
    GenrecError,
    InferenceError,
    InputError,
    Unsupported,
)
from genrec_runtime.module import Module, load
from genrec_runtime.options import Options
from genrec_runtime.recommender import Recommender
from genrec_runtime.verify import verify

if TYPE_CHECKING:
    from genrec_runtime.diagnosis import Diagnosis, doctor
    from genrec_runtime.reloader import Event, Reloader

__all__ = [
    "BundleCorrupt",
    "BundleError",
    "BundleNotFound",
    "BundleVersionError",
    "Closed",
    "DeadlineExceeded",
    "DeviceReport",
    "DeviceUnavailable",
    "Diagnosis",
    "Event",
    "ForkedProcessError",
    "GenrecError",
    "InferenceError",
    "InputError",
    "ItemIds",
    "Module",
    "Options",
    "Recommendations",
    "Recommender",
    "Reloader",
    "Unsupported",
    "doctor",
    "load",
    "verify",
]

_LATER = {
    "Diagnosis": "diagnosis",
    "Event": "reloader",
    "Reloader": "reloader",
    "doctor": "diagnosis",
}  # not for every start


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
