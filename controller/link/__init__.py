"""The controller's end of the node link: streams in, effects out. Decides nothing."""
