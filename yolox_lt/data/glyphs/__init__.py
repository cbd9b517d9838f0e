"""A long-tailed data set that draws itself."""
