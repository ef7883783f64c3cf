"""Programs that `tools.bench_attacks` starts: one process per implementation, all taking turns."""
