"""User names and passwords in URLs: refused where they are given, left out where they would be shown."""

import re

_USERINFO = re.compile(r"(?<=://)[^/?#\s\"'<>]*@")
_SIGNED = re.compile(
    r"://\S*[?&](?:x-amz-(?:signature|security-token|credential)|x-goog-signature|signature|sig)=", re.IGNORECASE
)


def holds_secret(url: str) -> bool:
    """Whether a URL holds a user name or password, or a signature that lets anyone in.

    >>> holds_secret("https://user:password@host/x"), holds_secret("s3://bucket/a@b"), holds_secret("https://a/b?sig=c")
    (True, False, True)
    """
    return _USERINFO.search(url) is not None or _SIGNED.search(url) is not None


def without_userinfo(text: str) -> str:
    """A text without the user names and passwords of the URLs in it.

    >>> without_userinfo("cannot reach http://user:pass@proxy:3128")
    'cannot reach http://***@proxy:3128'
    """
    return _USERINFO.sub("***@", text)


def showable(text: str) -> str:
    """A text as other systems may keep it: without user names and passwords of URLs, of characters that are UTF-8.

    >>> showable("tea at http://user:pass@host")
    'tea at http://***@host'
    """
    return without_userinfo(text).encode("utf-8", "replace").decode()
