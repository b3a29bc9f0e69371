"""What a forked process of the command finds imported: all that it would import itself, and nothing of a user's."""

# ruff: noqa: F401

import mlflow.store.tracking.sqlalchemy_store  # by MLflow for a file of SQLite
import torch._dynamo  # by torch at the first step of an optimizer

import orchestrator.cli
import orchestrator.cli.run
import orchestrator.compare.report.publish
import orchestrator.launch
import tests.orchestrator.command  # what it becomes
from orchestrator.tracking.embedded import new_store

new_store()
