"""What the gateway says of itself: counters, their exposition, the access log, the log and traces."""
