"""From a torch model to one self-checking ONNX bundle, published only after it proved to answer as torch does.

    from genrec_export import export_recommender

    exported = export_recommender(encode=net, item_vectors=net.items.weight, item_ids=ids, max_seq_length=50, ...)

Names are imported when first used, so that ``genrec-export --help`` needs neither torch nor onnx.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from genrec_export.errors import ExportError
from genrec_runtime.manifest import TensorSpec

if TYPE_CHECKING:
    from genrec_export.assemble import Exported
    from genrec_export.modules import export_module
    from genrec_export.recommender import export_recommender
    from genrec_export.runs import export_folder, export_run

__all__ = [
    "ExportError",
    "Exported",
    "TensorSpec",
    "export_folder",
    "export_module",
    "export_recommender",
    "export_run",
]

_NEEDED = {  # packages, and the extra that brings each
    "torch": "export",
    "onnx": "export",
    "onnxscript": "export",
    "safetensors": "export",
    "onnxruntime": "cpu",
}
_FILE_OF = {
    "Exported": "assemble",
    "export_folder": "runs",
    "export_module": "modules",
    "export_recommender": "recommender",
    "export_run": "runs",
}


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    missing = [package for package in _NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        extras = ",".join(sorted({_NEEDED[package] for package in missing}))
        raise ImportError(f"exporting needs {', '.join(missing)}; install with: pip install 'genrec[{extras}]'")
    return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
