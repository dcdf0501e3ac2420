"""The configuration of a gateway: its model, where it comes from, what is wrong with it, and how two of them differ."""
