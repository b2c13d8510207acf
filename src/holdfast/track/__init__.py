"""The view in MLflow."""
