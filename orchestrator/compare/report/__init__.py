"""The report: tables, page, and what is sent to MLflow."""
