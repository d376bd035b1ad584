"""Programs run once, recorded, and replayed without Python: see `pgm.tracing.program.trace`."""

from pgm.tracing.backends import BACKENDS, Backend, best_backend, compiles
from pgm.tracing.program import Trace, Untraceable, close, record, trace

__all__ = [
    "BACKENDS",
    "Backend",
    "Trace",
    "Untraceable",
    "best_backend",
    "close",
    "compiles",
    "record",
    "trace",
]
