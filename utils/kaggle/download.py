"""Downloading one file over HTTP, again after a pause if the fault is temporary."""

import http.client
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from utils.errors import InputError, first_line

PAUSES = (1, 5, 25)  # seconds before the second, third and fourth attempt
TIMEOUT = 30  # seconds without a byte
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # HTTP status
CHUNK = 2**16  # bytes


class NotFetched(Exception):
    """The server does not send a file, or damages it; the message names the URL and the reason."""


def check_url(option, url):
    """Raise InputError unless `url` is an HTTP address."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise InputError(f"{option} {url!r} is not an address; give one such as https://v18.proteinatlas.org/images")
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:  # also a port that is no number
        raise InputError(f"{option} {url!r} is not an address that begins with http:// or https://; fix it") from None


def download(url, most, stop):
    """Download a file of at most `most` bytes: -> bytes.

    stop: a threading.Event that ends the attempts. Raise NotFetched if the server answers without the whole file, and
    InputError if there is no connection to it, since other files would not come either.
    """
    for pause in (*PAUSES, None):
        try:
            return _read(url, most, stop)
        except urllib.error.HTTPError as error:
            failure, temporary = NotFetched(f"{url}: {error.code} {error.reason}"), error.code in TEMPORARY
            error.close()
        except urllib.error.URLError as error:  # no connection: an unknown name, refused, a bad certificate
            reason = first_line(error.reason)
            fix = "check the network and the address, then give the same command again"
            failure, temporary = InputError(f"{urlsplit(url).netloc} cannot be reached ({reason}); {fix}"), True
        except (OSError, http.client.HTTPException) as error:  # a timeout, a connection that broke off
            failure, temporary = NotFetched(f"{url}: {first_line(error)}"), True
        if pause is None or not temporary or stop.wait(pause):
            raise failure


def _read(url, most, stop):
    """One attempt. Raise NotFetched for a file that is too large, OSError for one that is cut short."""
    request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0 (compatible; Python-urllib)"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        parts, size = [], 0
        while part := response.read(CHUNK):
            parts.append(part)
            size += len(part)
            if size > most:
                raise NotFetched(f"{url}: more than {most:,} bytes")
            if stop.is_set():
                raise NotFetched(f"{url}: stopped")
        promised = response.headers.get("Content-Length", "")
        if promised.isdecimal() and size != int(promised):
            raise OSError(f"cut short, {size:,} of {int(promised):,} bytes")
    return b"".join(parts)
