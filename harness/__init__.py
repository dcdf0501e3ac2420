"""Proves a deployment: simulated engines and what is run against a gateway, which it knows only from outside."""
