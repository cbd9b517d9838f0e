"""Before a training: what the data are like and what is wrong with them."""
