"""From a study file to what the DAG runs."""
