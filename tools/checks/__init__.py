"""Long checks against the outside world: GPUs, Triton, model zoos, hostile clients and mutated files."""
