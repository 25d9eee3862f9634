"""URLs that strangers name: what they may say, before anything is looked up."""

from __future__ import annotations

from collections.abc import Collection

from yarl import URL

from federation_member.middleware.contract import UnusableImage

URL_LIMIT = 2048  # characters, of redirects too


def parse(text: str, ports: Collection[int]) -> URL:
    """Return the URL of an image; raise `UnusableImage` if it is not one that is fetched."""
    if len(text) > URL_LIMIT:
        raise UnusableImage(f"A URL of an image has at most {URL_LIMIT} characters.")
    try:
        url = URL(text)
        port, host = url.port, url.host
    except ValueError as error:
        raise UnusableImage(f"That is not a URL of an image: {error}.") from error
    if url.scheme not in ("http", "https") or not host:
        raise UnusableImage("The URL of an image begins with http:// or https:// and a host.")
    if url.user is not None or url.password is not None:
        raise UnusableImage("The URL of an image holds no user name and no password.")
    if port not in ports:
        raise UnusableImage(f"Images are fetched from the ports {', '.join(map(str, ports))} only, not from {port}.")
    return url.with_fragment(None)


def redirect(url: URL, location: str, ports: Collection[int]) -> URL:
    """Return where a redirect leads; raise `UnusableImage` if it may not be followed."""
    if len(location) > URL_LIMIT:
        raise UnusableImage(f"A URL of an image has at most {URL_LIMIT} characters, of redirects too.")
    try:
        target = parse(str(url.join(URL(location))), ports)
    except ValueError as error:
        raise UnusableImage(f"The server redirects to something that is no URL: {error}.") from error
    if url.scheme == "https" and target.scheme == "http":
        raise UnusableImage("The server redirects from https to http, which is not followed.")
    return target
