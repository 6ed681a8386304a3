"""Which execution provider runs which nodes of a session."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genrec_runtime.device import CPU

RECORD = "session.record_ep_graph_assignment_info"  # must be "1" in the options of a session that is asked for it

# Parts of the names of operators whose work grows with batch, width or catalogue, such as FusedMatMul and QGemm. Shape arithmetic
# (Shape, Gather, Concat, ...) belongs on the CPU, also beside CUDA; a Gather of embeddings looks the same, so it is not listed.
HEAVY = re.compile(
    "MatMul|Gemm|Attention|Normalization|Softmax|TopK|Conv|Einsum|Scatter|Quantize|Gelu|Erf|LSTM|GRU|RNN"
)


@dataclass(frozen=True)
class Placement:
    """Where a session's nodes run.

    Attributes:
        providers: the execution providers that the session started, the first preferred.
        operators: per provider, how many nodes of each operator it took; empty where that is not known.
    """

    providers: tuple[str, ...]
    operators: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def nodes(self) -> dict[str, int]:
        """How many nodes each provider took.

        >>> Placement((CPU,), {CPU: {"MatMul": 2, "Shape": 1}}).nodes
        {'CPUExecutionProvider': 3}
        """
        return {provider: sum(taken.values()) for provider, taken in self.operators.items()}

    @property
    def heavy_on_cpu(self) -> tuple[str, ...]:
        """Operators of much work that the CPU took, sorted, where a faster provider was started.

        >>> Placement(("CUDAExecutionProvider", CPU), {CPU: {"TopK": 1, "Shape": 4}}).heavy_on_cpu
        ('TopK',)
        """
        if set(self.providers) <= {CPU}:
            return ()
        return tuple(sorted(filter(HEAVY.search, self.operators.get(CPU, ()))))

    @property
    def problem(self) -> str:
        """What is wrong with it, "" where nothing is: heavy operators on the CPU, with how many nodes of each."""
        if not self.heavy_on_cpu:
            return ""
        counts = ", ".join(f"{name} ({self.operators[CPU][name]})" for name in self.heavy_on_cpu)
        return f"{self.providers[0]} started, but these operators run on the CPU: {counts}"


def placement(session: Any) -> Placement:
    """Where the nodes of an open session run, after onnxruntime's first simplifications of the graph.

    Args:
        session: one whose options set ``RECORD`` to "1". Of others, and of an onnxruntime that does not record it, only
            the providers are known.
    """
    try:
        parts = session.get_provider_graph_assignment_info()
    except Exception:  # each version refuses in its own way, and what cannot be told is no reason not to serve
        parts = []
    taken: dict[str, Counter[str]] = {}
    for part in parts:
        taken.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return Placement(tuple(session.get_providers()), {provider: dict(found) for provider, found in taken.items()})
