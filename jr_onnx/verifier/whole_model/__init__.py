"""The whole model: every lowering against the original, the sites in place, the reference run, and the bounds."""
