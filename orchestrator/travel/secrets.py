"""Secrets recognized by name and by format. A file that holds one is never uploaded."""

from __future__ import annotations

import fnmatch
import re

NAMES = (
    ".env*",
    "*.env",
    "env.local",
    "*.pem",
    "*.key",
    "*.p8",
    "*.p12",
    "*.pfx",
    "*.pkcs12",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.ppk",
    "*.asc",
    "*.gpg",
    "*.ovpn",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "*_rsa",
    "*_dsa",
    "*_ecdsa",
    "*_ed25519",
    "deploy_key*",
    ".netrc",
    "_netrc",
    ".pgpass",
    ".my.cnf",
    ".mylogin.cnf",
    ".pypirc",
    ".npmrc",
    ".yarnrc.yml",
    ".git-credentials",
    ".htpasswd",
    ".dockercfg",
    ".dockerconfigjson",
    "*kubeconfig*",
    "kube.config",
    "credentials",
    "credentials.*",
    "*credentials.json",
    "secrets",
    "secrets.*",
    "secret.*",
    "*.secret",
    "*.secrets",
    "client_secret*.json",
    "service_account*.json",
    "service-account*.json",
    "*token",
    "*token.txt",
    "*.token",
    "token.json",
    "api_key*",
    "apikey*",
    "*_api_key",
    "*_api_key.txt",
    "password",
    "password.*",
    "passwords",
    "passwords.*",
    ".s3cfg",
    ".boto",
    "rclone.conf",
    ".vault-token",
    ".databrickscfg",
    ".modal.toml",
    "kaggle.json",
    "*.tfvars",
    "*.tfstate",
    ".terraformrc",
)
"""Patterns for file names, case-insensitive."""
TEMPLATES = (".example", ".sample", ".template", ".dist")
COPY = re.compile(r"(?:~|#|[ _-]?copy|\.(?:bak|backup|old|orig|sav|save|sw[a-p]|tmp|\d+))+$")
"""What editors and careful people add to the name of a copy."""
FOLDERS = {".ssh", ".aws", ".gnupg", ".kube", ".docker", ".azure", ".huggingface"}
FOLDERS |= {f".config/{name}" for name in ("gcloud", "gh", "rclone")}
SHAPES = {
    "a private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "an AWS secret key": r"(?i)aws_secret_access_key\W{1,5}[A-Za-z0-9/+]{40}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}\b",
    "a Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a webhook": r"\bhooks\.slack\.com/services/T\w{5,20}/B\w{5,20}/\w{10,}"
    r"|\bdiscord(?:app)?\.com/api/webhooks/\d{10,}/[\w-]{30,}",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "an OpenAI or Anthropic API key": r"\bsk-(?:proj-|ant-|svcacct-)?(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{32,}",
    "a Weights & Biases key": r"(?i)wandb_api_key\W{1,5}[0-9a-f]{40}\b",
    "a key of an Azure account": r"\b(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{40,}",
    "a token of a package registry": r"\b(?:pypi-AgE[\w-]{20,}|npm_[A-Za-z0-9]{36}|dckr_pat_[\w-]{20,})",
    "a key of a Kubernetes user": r"\bclient-key-data:\s*[A-Za-z0-9+/]{40,}",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/:@\"'{}<>$%]+:"
    r"(?!(?i:pass|password|passwd|pwd|pw|secret|token|key|x+|\*+|\.+)@)[^\s/:@\"'{}<>$%]{3,}@[A-Za-z0-9]",
}
"""Description -> pattern."""
_SHAPES = {what: re.compile(shape.encode()) for what, shape in SHAPES.items()}


def is_secret_name(name: str) -> bool:
    """Whether the name of a file, or of a folder above it, suggests secrets; `.env.example` does not."""
    lower = name.lower()
    *folders, last = lower.split("/")
    if any(folder in FOLDERS for folder in folders) or any(f"{f}/" in f"{lower}/" for f in FOLDERS if "/" in f):
        return True
    if last.endswith(TEMPLATES) or last.endswith((".py", ".md", ".rst")):
        return False
    plain = COPY.sub("", last.lstrip("#"))
    forms = {last, plain, plain.lstrip(".")}
    return any(fnmatch.fnmatchcase(form, pattern) for form in forms for pattern in NAMES)


def found_in(content: bytes) -> tuple[str, int] | None:
    """(what the first secret in a file looks like, its line from 1), or None. The secret itself is not returned."""
    hits = [(hit.start(), what) for what, shape in _SHAPES.items() if (hit := shape.search(content))]
    if not hits:
        return None
    start, what = min(hits)
    return what, content.count(b"\n", 0, start) + 1
