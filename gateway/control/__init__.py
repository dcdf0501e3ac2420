"""The control plane: routes for workers, configuration and status, over a `LeaderPort`."""
