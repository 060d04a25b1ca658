"""Degradations: drawn by recipes, applied by ops, written down in records."""
