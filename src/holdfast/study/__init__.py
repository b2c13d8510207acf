"""How does a study file become what the DAG runs?"""
