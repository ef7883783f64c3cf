"""What Triton's protocol has beside inference: configuration, statistics, settings, shared memory, health."""
