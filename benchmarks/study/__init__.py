"""A study of the equalized losses in miniature: runs, measurements, tables and figures of docs/results.md.

python -m benchmarks.study --set cpu --jobs 2      # what `make study` does
"""
