"""genrec: train recommenders in PyTorch, export them to ONNX, serve them without PyTorch."""

__version__ = "0.1.0"
