"""Market data on the node: frames in, validated rows out.

See `docs/market-data.md` for the flow. Pure parts (parsing, validation, books, ledger, capture format, pipeline) live
here; sockets, the QuestDB writer and the process around them are `session`, `writer` and `service`.
"""
