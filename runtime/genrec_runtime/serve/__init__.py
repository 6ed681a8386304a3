"""One node's service: recommendations by HTTP, in micro-batches (extra ``serve``).

``batcher`` and ``queries`` know no web framework, and serve whoever brings another one.
"""
