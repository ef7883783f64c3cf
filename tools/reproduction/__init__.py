"""The paper's MNIST tables, measured again: the figures to meet, the runs, the page."""
