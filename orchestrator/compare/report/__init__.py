"""The report: tables, page, what MLflow is sent."""
