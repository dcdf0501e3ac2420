"""The data plane towards clients: connections, listeners, and the few routes that no worker answers."""
