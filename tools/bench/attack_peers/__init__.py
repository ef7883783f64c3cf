"""Programs that `tools.bench.attacks` starts: one process per implementation, all taking turns."""
