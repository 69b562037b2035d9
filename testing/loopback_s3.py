"""A real S3 server on loopback (moto's), for tests and benchmarks, and what clients need in their environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest import mock


@contextmanager
def loopback_s3() -> Iterator[tuple[str, int]]:
    """Host and port of a running server without any bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()


def s3_environment(url: str) -> Mapping[str, str]:
    """What points S3 clients to `url`."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextmanager
def speaking_to(url: str) -> Iterator[None]:
    """S3 clients of this process speak to `url`; file systems made before are forgotten."""
    import s3fs

    with mock.patch.dict(os.environ, s3_environment(url)):
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            yield
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
