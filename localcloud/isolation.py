"""Keeps a shell's own AWS settings and proxies away from clients that shall talk to this machine's region only."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_LOCAL_HOSTS = ("127.0.0.1", "localhost")


def isolate(environ: MutableMapping[str, str]) -> None:
    """Take every AWS setting out of *environ*, hide AWS's configuration files from it, and let no proxy stand before this machine.

    A profile, the endpoint of one service or AWS_IGNORE_CONFIGURED_ENDPOINT_URLS would lead clients elsewhere, to a real account even; a retry mode or
    S3 acceleration in ~/.aws/config would break them. Whoever calls this sets AWS_ENDPOINT_URL, region and credentials afterwards.
    """
    for name in [name for name in environ if name.startswith("AWS_")]:
        del environ[name]
    environ["AWS_CONFIG_FILE"] = environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    environ["AWS_EC2_METADATA_DISABLED"] = "true"
    # Python and curl heed the small spelling first, others the large one only.
    direct = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    hosts = [host for host in direct.split(",") if host]
    hosts += [host for host in _LOCAL_HOSTS if host not in hosts]
    environ["no_proxy"] = environ["NO_PROXY"] = ",".join(hosts)
