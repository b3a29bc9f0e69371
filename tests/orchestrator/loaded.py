"""What a forked process of the command finds imported: all that it would import itself, and nothing of a user's."""

import torch._dynamo  # noqa: F401  by torch at the first step of an optimizer

import orchestrator.cli
import orchestrator.cli.run
import orchestrator.compare.report.publish
import orchestrator.launch  # noqa: F401
from orchestrator.tracking.embedded import new_store

new_store()
