# SPDX-License-Identifier: Apache-2.0
"""Read a small file from http, https or file, with a limit of time and size and failures as sentences."""

from __future__ import annotations

import re
import socket
from urllib.error import HTTPError, URLError

from ansible.module_utils.urls import ConnectionError as UrlConnectionError
from ansible.module_utils.urls import NoSSLError, SSLValidationError, open_url

from .errors import InvalidInputError, MissingError

LIMIT = 1 << 20
TIMEOUT_S = 30
URL = re.compile(r"^(?:https?://[^/\s]+(?:/\S*)?|file:///\S*)$")
CREDENTIALS = re.compile(r"://[^/@\s]+@")


def shown(url: str) -> str:
    """Return a URL for messages: without its password."""
    return CREDENTIALS.sub("://", url)


def checked(url: str, what: str, node: str) -> str:
    """Return the URL, or refuse what is none that a package manager reads."""
    if URL.match(url):
        return url
    raise InvalidInputError(
        f"use {what}",
        node,
        f"'{shown(url)}' is no URL",
        "Write it as http://HOST/PATH/, https://HOST/PATH/ or file:///PATH/",
        expected="http://, https:// or file:///",
        found=shown(url),
    )


def fetch(url: str, *, node: str, what: str, variable: str) -> bytes:
    """Return the content of a URL.

    Args:
        what: name of the thing for the message (``the signing key``).
        variable: the input people set to name another place.

    Raises:
        MissingError: it is not there, or the host does not answer.
    """
    checked(url, what, node)
    try:
        with open_url(url, timeout=TIMEOUT_S, http_agent="rackwright", follow_redirects="safe") as answer:
            content: bytes = answer.read(LIMIT + 1)
    except HTTPError as error:
        raise _failed(url, node, what, variable, f"answers {error.code} {error.reason}") from error
    except (NoSSLError, SSLValidationError, UrlConnectionError) as error:
        raise _failed(url, node, what, variable, f"cannot be reached: {str(error).partition(' (')[0]}") from error
    except (URLError, socket.timeout, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise _failed(url, node, what, variable, f"cannot be reached: {reason}") from error
    if len(content) > LIMIT:
        raise _failed(url, node, what, variable, f"is larger than {LIMIT >> 20} MiB")
    return content


def _failed(url: str, node: str, what: str, variable: str, how: str) -> MissingError:
    return MissingError(
        f"fetch {what}",
        node,
        f"{shown(url)} {how}",
        f"Make it reachable from the node (DNS, route, proxy), or set {variable}",
        found=shown(url),
    )
