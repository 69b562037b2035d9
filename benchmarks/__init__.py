"""One measurement a module: ``python -m benchmarks.NAME [--quick]``; its last line is one JSON object."""

from flows.runtime.environment import quiet

# Before torch is imported: its waiting threads then sleep, and a figure depends less on what else the machine does.
quiet()
