"""The gateway: data plane, control plane and the processes that carry them."""
