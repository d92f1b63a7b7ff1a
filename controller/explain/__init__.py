"""Why things are as they are, and what a change would do: read-only questions to the live state.

Every answer is a frozen value. Its `cause` or `verdict` is for programs, the sentence beside it is for people, and the
gateway alone makes JSON of both. An answer names every node with every reason, not just the first that failed.
"""
