"""Many machines by Ray (extra ``ray``): the parts of an offline job, and the service, each as on one machine.

All that these modules add is where the work is done; the parts, the batches and the answers are those of ``batch`` and ``serve``.
"""
