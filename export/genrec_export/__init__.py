"""From a torch model to one self-checking ONNX bundle, published only after it proved to answer as torch does.

from genrec_export import export_recommender

exported = export_recommender(encode=net, item_vectors=net.items.weight, item_ids=ids, max_seq_length=50, ...)
"""

from genrec_export.assemble import Exported
from genrec_export.errors import ExportError
from genrec_export.modules import export_module
from genrec_export.recommender import export_recommender
from genrec_export.runs import export_folder, export_run
from genrec_runtime.manifest import TensorSpec

__all__ = [
    "ExportError",
    "Exported",
    "TensorSpec",
    "export_folder",
    "export_module",
    "export_recommender",
    "export_run",
]
