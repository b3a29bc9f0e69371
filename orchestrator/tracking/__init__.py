"""Where runs are tracked: MLflow, or nowhere."""

from orchestrator.tracking import mlflow_environment

mlflow_environment.apply()
