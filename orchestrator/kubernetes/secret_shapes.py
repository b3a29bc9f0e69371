"""Keys and passwords recognized by their format, and by the name of what holds them.

No pattern looks further than a few hundred characters from its start: megabytes of text take milliseconds.
"""

from __future__ import annotations

import re

SHAPES = {
    "a private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "an AWS access key": r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}(?![A-Za-z0-9])",
    "an AWS secret key": r"(?i)(?:aws|secret|s3)\w{0,40}key\W{1,5}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
    "a GitHub token": r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})",
    "a GitLab token": r"(?<![A-Za-z0-9])gl(?:pat|ptt|dt|rt)-[A-Za-z0-9_-]{16,}",
    "a Hugging Face token": r"(?<![A-Za-z0-9])(?:hf|api_org)_[A-Za-z0-9]{20,}",
    "a Weights & Biases key": r"(?i)(?:wandb|weights)\w{0,40}\W{1,5}[0-9a-f"
    r"]{40}(?![0-9a-f])|wandb_v1_[A-Za-z0-9_]{20,}",
    "a Slack token": r"(?<![A-Za-z0-9])xox[abeprs]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/T\w{5,20}/B\w{5,20}/\w",
    "a Google key": r"(?<![A-Za-z0-9])AIza[0-9A-Za-z_-]{35}",
    "an OpenAI or Anthropic API key": r"(?<![A-Za-z0-9])sk-(?:proj-|ant-|svcacc"
    r"t-)?(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{20,}",
    "an Azure account key": r"(?i)(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{20,}",
    "a package registry token": r"(?<![A-Za-z0-9])(?:pypi-AgE[A-Za-z0-9_-]{20,}|n"
    r"pm_[A-Za-z0-9]{30,}|dckr_pat_[A-Za-z0-9_-]{20,})",
    "a JSON web token": r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    "a password in an "
    "address": r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,30}://[^/\s:@]{0,100}:[^/\s@$][^/\s@]{0,500}@",
    "a token in a header": r"(?i)authorization\W{1,4}(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}",
}
"""Description -> pattern."""
_SHAPES = {what: re.compile(shape) for what, shape in SHAPES.items()}
_ASSIGNED = re.compile(
    r"(?i)(?<![A-Za-z0-9])(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key)"
    r"[\"']?\s*[=:]\s*[\"']?(?![$/{<])[^\s\"',}]{6,}"
)
_WORDS = {
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "PWD",
    "TOKEN",
    "SECRET",
    "SECRETS",
    "PRIVATE",
    "CREDENTIAL",
    "CREDENTIALS",
}
_JOINED = re.compile(
    r"(?:API|ACCESS|PRIVATE|SECRET|ENCRYPTION|SIGNING|SSH|LICENSE|AUTH|ACCOUNT)_?KEY(?:_?ID)?$|^APIKEY$"
)
_PLACE = re.compile(r"_(?:PATH|FILE|DIR|FOLDER|NAME|URL|URI|HOST|TTL|MODE|TYPE|LENGTH|COUNT|LIMIT)$")


def shape_of(text: str, *, assigned: bool = False) -> str:
    """What secret a text holds, by its format; empty if none. `assigned`: also KEY=VALUE with a suspicious key."""
    for what, shape in _SHAPES.items():
        if shape.search(text):
            return what
    return "a secret" if assigned and _ASSIGNED.search(text) else ""


def is_secret_name(name: str) -> bool:
    """Whether the name of a variable suggests a secret; `RAY_AUTH_TOKEN_PATH` names a file."""
    upper = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper().replace("-", "_").replace(".", "_")
    if _PLACE.search(upper) or upper in ("PWD", "OLDPWD"):
        return False
    words = upper.split("_")
    return bool(_WORDS & set(words)) or bool(_JOINED.search(upper)) or words[-1].endswith(("PASSWORD", "PASSWD"))


def secret_of(name: str, value: str) -> str:
    """What secret a variable holds, by its name and value; empty if none."""
    if not value:
        return ""
    return shape_of(value) or shape_of(f"{name}: {value}") or ("a secret" if is_secret_name(name) else "")
