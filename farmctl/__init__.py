"""The command line. It speaks HTTP to the gateway and nothing else, and holds no decisions."""
