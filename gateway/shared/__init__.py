"""What the processes of one gateway share in memory: one table of counters, each process writing its own row."""
