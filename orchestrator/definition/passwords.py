"""Addresses with passwords: what is shown and kept of them, and how they become whole again.

`postgresql://me:word@host/db` is shown as `postgresql://***@host/db`. What a sweep's folder keeps of `tracking.mlflow`
has no password either; whoever needs the address later has it from the environment (`whole`).
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote, urlsplit

from orchestrator.definition.errors import UsageError

MASK = "***"
VARIABLE = re.compile(r"\$\{env:([A-Za-z_]\w*)\}")
WHOLE_URI = "MLFLOW_TRACKING_URI"
"""Variable that may hold the whole address."""
_WHO = re.compile(r"(?<=://)(?![^/\s:]+:PASSWORD@)(?:[^/\s]+@|[^/\s:@\"']*:(?!\d+(?:[/\s]|$))[^\s@\"'<>]+@)")
_NAME = re.compile(r"(?:\$\{env:[A-Za-z_]\w*\}|[^:])*")
_QUERY = re.compile(
    r"(?i)(?<=[?&;])((?:ssl)?password|passwd|passphrase|pwd|secret|sig|signature|(?:[a-z]+_)*(?:token|api_?key))"
    r"=(?!\$\{env:)[^&;#\s\"'<>]+"
)


class PasswordNeeded(UsageError, ConnectionError):  # noqa: N818
    """An address is not whole: a variable is not set, or its password was not kept."""


def without_passwords(text: str) -> str:
    """The text; names and passwords before the host of an address are `***`, unless it says PASSWORD itself."""
    return _QUERY.sub(rf"\1={MASK}", _WHO.sub(_masked, text)) if "://" in text else text


def kept(address: str) -> str:
    """What may be written of an address: no password, and no user name of a web server, which may be a token.

    Variables, ${env:NAME}, stay: they are names.
    """
    scheme, who, rest = _parts(address)
    found = _NAME.match(who)
    name = found[0] if found else ""
    password = who[len(name) + 1 :]
    if VARIABLE.sub("", password):
        who = f"{name}:{MASK}"
    if scheme in ("http", "https") and (who.endswith(f":{MASK}") or (not password and VARIABLE.sub("", name))):
        who = MASK
    rest = _QUERY.sub(rf"\1={MASK}", rest)
    return _joined(scheme, who, rest)


def whole(address: str) -> str:
    """The address as a client needs it: variables filled in, and a password that was not kept taken from the
    environment: MLFLOW_TRACKING_URI, if it is the same address, or what MLflow (MLFLOW_TRACKING_USERNAME and _PASSWORD,
    MLFLOW_TRACKING_TOKEN) and PostgreSQL (PGPASSWORD, ~/.pgpass) read by themselves.

    Raises PasswordNeeded.
    """

    def of(found: re.Match[str]) -> str:
        if not (value := os.environ.get(found[1], "")):
            raise PasswordNeeded(f"tracking.mlflow: the environment variable {found[1]} is not set")
        return value

    scheme, who, rest = _parts(address)
    who = VARIABLE.sub(lambda found: quote(of(found), safe="%"), who)
    address = _joined(scheme, who, VARIABLE.sub(of, rest))
    if MASK not in address:
        return address
    given = os.environ.get(WHOLE_URI, "")
    if given and MASK not in given and _same(given) == _same(address):
        return given
    scheme, who, rest = _parts(address)
    if scheme in ("http", "https"):
        who = ""
    elif scheme.partition("+")[0] in ("postgresql", "postgres"):
        who = who.removesuffix(f":{MASK}")
    found = _joined(scheme, who, rest)
    if MASK in found:
        raise PasswordNeeded(f"the password of {without_passwords(address)} is not kept; set {WHOLE_URI} to all of it")
    return found


def bare(address: str) -> str:
    """A web address to open: without user name and password."""
    scheme, _, rest = _parts(address)
    return f"{scheme}://{rest}" if scheme in ("http", "https") else address


def _masked(found: re.Match[str]) -> str:
    who = found[0].removesuffix("@")
    name = _NAME.match(who)
    password = who[len(name[0]) + 1 :] if name else ""
    return f"{MASK}@" if VARIABLE.sub("", password or (name[0] if name else "")) else found[0]


def _parts(address: str) -> tuple[str, str, str]:
    """(scheme, user name and password, rest) of `scheme://user:password@rest`."""
    scheme, slashes, rest = address.partition("://")
    if not slashes:
        return "", "", address
    found = _WHO.match(address, len(scheme) + 3)
    end = found.end() if found else 0
    return (scheme, address[len(scheme) + 3 : end - 1], address[end:]) if found else (scheme, "", rest)


def _joined(scheme: str, who: str, rest: str) -> str:
    return f"{scheme}://{who}{'@' if who else ''}{rest}" if scheme else rest


def _same(address: str) -> tuple[str, str, str]:
    """What two addresses of one server have in common."""
    scheme, _, rest = _parts(address)
    found = urlsplit(f"//{rest}")
    return scheme, found.netloc.lower(), found.path.rstrip("/")
