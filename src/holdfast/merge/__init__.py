"""Arithmetic on finished models."""
