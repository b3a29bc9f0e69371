"""The user's code in a RayJob: a ConfigMap if the archive fits into one, otherwise uploaded to an object store."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from orchestrator.kubernetes.fit import RenderError
from orchestrator.remote import Parcel

FILE_LIMIT = 250_000
"""Maximum bytes of an archive in base64."""
ANNOTATIONS = 262_144
"""Maximum bytes of all annotations of an object (Kubernetes, apimachinery/pkg/api/validation)."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
MOUNT, CODE_MOUNT = "/etc/sweep", "/etc/sweep-code"


def fits(parcel: Parcel) -> bool:
    """Whether the archive fits in a ConfigMap."""
    return parcel.archive.stat().st_size * 4 / 3 <= FILE_LIMIT


def applied_size(document: Mapping[str, Any]) -> int:
    """Bytes of the object's annotations after `kubectl apply` has stored what it applied in them.

    That is the object as JSON in Go's encoding, where quotes, line ends and <, >, & take more than a byte each.
    """
    told = {**document, "metadata": {"annotations": {}, **document["metadata"]}}
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    wide = sum(text.count(letter) for letter in "<>&") * 5 + sum(text.count(letter) for letter in "\u2028\u2029") * 3
    kept = len(LAST_APPLIED) + len(text.encode()) + wide + 1
    return kept + sum(len(k.encode()) + len(v.encode()) for k, v in told["metadata"]["annotations"].items())


class Code:
    """How the user's code gets to the head of `job`; Ray sends it on to the workers.

    `at`: where the archive was uploaded; empty: it goes in a ConfigMap. Raises RenderError if it does not fit.
    """

    def __init__(self, parcel: Parcel | None, at: str, *, job: str, metadata: Mapping[str, Any]) -> None:
        self._parcel, self._at, self._job, self._metadata = parcel, at, job, dict(metadata)
        if parcel is None:
            return
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", parcel.sweep):
            raise RenderError(
                f"{parcel.sweep}: an entrypoint may contain only letters, digits and . _ - /; rename the file"
            )
        if not at and not fits(parcel):
            size, most = parcel.archive.stat().st_size / 1e3, FILE_LIMIT * 3 / 4e3
            raise RenderError(
                f"{parcel.folder} is {size:,.0f} kB packed, but only {most:,.0f} kB fit into a ConfigMap; list what "
                "the trials do not need in .geosweepignore, `submit` with --root s3:// to upload the archive, or "
                "build your own image with the code installed (environment.image)"
            )

    def config_maps(self) -> list[dict[str, Any]]:
        """The archive, if it goes in one."""
        if self._parcel is None or self._at:
            return []
        packed = base64.b64encode(self._parcel.archive.read_bytes()).decode()
        return [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": self._name(), **self._metadata},
                "immutable": True,
                "binaryData": {self._parcel.archive.name: packed},
            }
        ]

    def run(self) -> str:
        """The sweep file as named in the entrypoint."""
        if self._parcel is None:
            return f"{MOUNT}/sweep.yaml"
        return f"{self._parcel.sweep} --code {self._at or f'{CODE_MOUNT}/{self._parcel.archive.name}'}"

    def volumes(self) -> list[dict[str, Any]]:
        """Of the head's Pod."""
        return [{"name": "code", "configMap": {"name": self._name()}}] if self.config_maps() else []

    def mounts(self) -> list[dict[str, Any]]:
        """Of the head's container."""
        return [{"name": "code", "mountPath": CODE_MOUNT, "readOnly": True}] if self.config_maps() else []

    def _name(self) -> str:
        assert self._parcel is not None
        return f"{self._job}-code-{self._parcel.digest[:8]}"
