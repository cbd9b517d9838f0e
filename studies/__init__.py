"""A study of the equalized losses in miniature: runs, measurements, tables and figures of docs/results.md.

python -m studies --set cpu --jobs 2      # what `make study` does
"""
