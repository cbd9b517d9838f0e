"""Tables, images and the page of a run."""
