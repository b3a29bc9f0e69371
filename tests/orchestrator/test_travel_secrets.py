"""What does not leave this machine: files by their names, keys by their shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.travel.files import traveling
from orchestrator.travel.secrets import SHAPES, found_in, is_secret_name


@pytest.mark.parametrize(
    "name",
    [".env", ".env.local", "prod.env", "deploy/id_rsa", "tls.key", "a/server.PEM", ".ssh/config", ".aws/credentials",
     "kubeconfig", "service_account_1.json", ".netrc", "secrets.yaml", "x/.git-credentials", "kaggle.json",
     ".env-prod", ".env~", "#.env#", "kubeconfig-prod.yaml", "server.pem.bak", ".id_rsa.swp", "deploy_ed25519",
     "hf_token", "api_key.txt", "passwords.txt", ".s3cfg", "prod.tfvars", "a\nb/.env", ".config/gh/hosts.yml",
     "credentials.json.old"],
)  # fmt: skip
def test_secrets_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "p" / name
    path.parent.mkdir(parents=True)
    path.write_text("x")
    (tmp_path / "p" / "a.py").write_text("")
    assert is_secret_name(name)
    assert traveling(tmp_path / "p") == ({"a.py": tmp_path / "p" / "a.py"}, [name])


@pytest.mark.parametrize(
    "name",
    [
        "a.py",
        "secrets.py",
        ".env.example",
        "keys/table.csv",
        "environment.yaml",
        "key.txt",
        "tokenizer.json",
        "tokens.bin",
        "get_token.py",
        "envs/a.yaml",
        "password_strength.csv",
        "universal.txt",
    ],
)
def test_no_secrets_by_name(name: str) -> None:
    assert not is_secret_name(name)


SAMPLES = {
    "a private key": "-----BEGIN RSA PRIVATE " + "KEY-----",
    "an AWS access key": "AKIA" + "ABCDEFGH12345678",
    "an AWS secret key": "aws_secret_access_key = " + "a" * 40,
    "a GitHub token": "ghp_" + "a" * 36,
    "a GitLab token": "glpat-" + "a" * 20,
    "a Hugging Face token": "hf_" + "a" * 34,
    "a Slack token": "xoxb-" + "1" * 12,
    "a webhook": "https://hooks.slack.com/services/T" + "0" * 9 + "/B" + "0" * 9 + "/" + "x" * 24,
    "a key of an Azure account": "AccountKey=" + "a" * 86 + "==",
    "a token of a package registry": "npm_" + "a" * 36,
    "a key of a Kubernetes user": "client-key-data: " + "LS0t" * 12,
    "a Google API key": "AIza" + "a" * 35,
    "an OpenAI or Anthropic API key": "sk-" + "a1" * 20,
    "a Weights & Biases key": "WANDB_API_KEY=" + "a" * 40,
    "a JSON web token": "eyJ" + "a" * 12 + ".eyJ" + "b" * 12 + "." + "c" * 12,
    "a password in an address": "postgresql://me:" + "hunter2@host/db",
}


@pytest.mark.parametrize("what", SHAPES)
def test_secrets_by_shape(what: str) -> None:
    assert found_in(f"a = 1\n\nkey = '{SAMPLES[what]}'\n".encode()) == (what, 3)


@pytest.mark.parametrize(
    "line",
    ["https://host/a@b", "postgresql://USER:PASSWORD@HOST/DB", "from sklearn import sk", "task-" + "x" * 40, "hf_hub"],
)
def test_no_secrets_by_shape(line: str) -> None:
    assert found_in(line.encode()) is None
