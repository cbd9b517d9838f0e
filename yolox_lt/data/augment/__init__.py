"""Training recipes: pure functions on images and boxes, and the order in which they come."""
