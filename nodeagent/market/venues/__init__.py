"""The venues this package brings; others arrive through the entry point group `agentfarm.feed_sources`."""
