"""How a bundle is to be served on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from genrec_runtime.device import parse_device
from genrec_runtime.manifest import FP32


@dataclass(frozen=True)
class Options:
    """The choices of who serves; the same for every graph of a bundle.

    Args:
        device: "cpu", "cuda", "cuda:N" are strict; "auto" takes a GPU if one starts and warns if not.
        threads: threads within an operator on the CPU; None takes what the process may use.
        variant: which form of the graphs to run; a graph that has no such form runs as "fp32".
        dedicated: let idle threads spin: quicker on a machine of its own, far slower where others compute too.
        cuda_graphs: replay each shape's kernels as one CUDA graph: less overhead for small batches, one call at a time.

    Raises:
        ValueError: if ``device`` is no device, ``threads`` is no whole number of at least 1, ``variant`` is no text, or a switch
            is neither True nor False.
    """

    device: str = "auto"
    threads: int | None = None
    variant: str = FP32
    dedicated: bool = False
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        kind, _ = parse_device(self.device)
        if self.threads is not None and (type(self.threads) is not int or self.threads < 1):
            raise ValueError(f"threads ({self.threads!r}) must be a whole number of at least 1")
        if not isinstance(self.variant, str):
            raise ValueError(f"variant ({self.variant!r}) must be the name of a form, such as 'fp32'")
        for name in ("dedicated", "cuda_graphs"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} ({getattr(self, name)!r}) must be True or False")
        if self.cuda_graphs and kind == "cpu":
            raise ValueError("cuda_graphs=True needs a GPU, device='cpu' has none")


DEFAULT = Options()
