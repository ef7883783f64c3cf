"""Every site alone: its nodes as a model of their own, tried with the jump, its neighbours and special values."""
