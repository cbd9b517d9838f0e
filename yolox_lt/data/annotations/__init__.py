"""Annotations: formats, the index of columns, joining, splitting, writing."""
