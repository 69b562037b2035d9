"""Prefect flows and the command line: composition only, no computation of its own."""

from flows.runtime.environment import quiet

# Telemetry and console noise are decided when prefect is first imported, and every way to our flows (the
# command line, a Prefect worker, a test) passes here before that.
quiet()
