"""The processes of one gateway: the leader, the members that serve, the links between them, and their supervisor."""
