"""Where people look at runs: MLflow, or nowhere."""
