"""What a forked process of the command finds imported: all that it would import itself, and nothing of a user's."""

import torch._dynamo  # noqa: F401  by torch at the first step of an optimizer

import orchestrator.cli
import orchestrator.cli.run
import orchestrator.compare.report.publish
import orchestrator.launch
import tests.orchestrator.command  # noqa: F401  what it becomes; it imports MLflow's client
from orchestrator.tracking.embedded import new_store

new_store()
