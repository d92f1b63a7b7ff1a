"""The verbs, one file a noun. Each says what it does in one docstring, which is its help."""
