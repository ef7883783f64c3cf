"""The paper's MNIST tables, measured anew: the figures to meet, the runs, the page."""
