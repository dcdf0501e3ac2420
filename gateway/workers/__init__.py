"""Workers: who they are, how they do, and what each process keeps to reach them.

`fleet.py` decides (one a gateway): records, probes, health, discovery, drains. `registry.py` follows (one a process):
connections, breakers, counters.
"""
