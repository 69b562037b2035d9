"""Processes to be killed: forked from one that has imported what a curation needs, so that each begins at once."""

from __future__ import annotations

import multiprocessing

PRELOAD = ["torch._inductor.config", "open_clip", "webdataset", "testing.small_catalog", "s3fs"]
"""Imported once by the process that children are forked from; it computes nothing, so it has no threads to lose."""

CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(PRELOAD)
