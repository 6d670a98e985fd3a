"""The network: nothing is sent unless it was asked for, and whether the Hugging Face hub can be asked at all.

Its own client tries for half a minute.
"""

import os
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies

# What libraries send of themselves: usage, errors, that a data set was loaded. They read this when they are imported, so it is set when
# this file is, which every file that may import one of them imports; other processes inherit it. Who sets one otherwise has asked for it.
UNASKED = {"WANDB_ERROR_REPORTING": "false", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "false"}
for name, value in UNASKED.items():
    os.environ.setdefault(name, value)


def reachable(seconds: float = 3.0) -> bool:
    """Whether the hub's host answers within so many seconds. Behind a proxy only trying tells, so there it is True."""
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return False
    if getproxies():
        return True
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection((endpoint.hostname or "", endpoint.port or 443), timeout=seconds).close()
    except OSError:
        return False
    return True
