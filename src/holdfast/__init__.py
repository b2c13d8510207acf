"""holdfast: fine-tune a language model without losing its refusals."""

__version__ = "0.2.0"
