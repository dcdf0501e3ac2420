"""The only sockets towards workers: a pooled HTTP/1.1 client, where it connects to, and a fake of it for tests."""
