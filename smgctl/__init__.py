"""The command line. It talks to a running gateway through `gateway.sdk` alone; the path of a command is the path of its file."""
