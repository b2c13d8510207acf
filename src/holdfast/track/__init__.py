"""What does MLflow show of the files?"""
