"""One measurement a module: ``python -m benchmarks.NAME [--quick]``; its last line is one JSON object."""
