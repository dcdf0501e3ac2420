"""Ranks the workers of a model for a request. It is told loads and costs; it opens nothing and subscribes to nothing."""
