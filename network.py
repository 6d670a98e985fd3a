"""Before anything is downloaded: whether the Hugging Face hub can be asked at all. Its own client tries for half a minute."""

import os
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies


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
