"""Starts and stops gateways and engines as real processes."""
