"""Who may use the gateway, how much a minute, how many at once, and who waits."""
