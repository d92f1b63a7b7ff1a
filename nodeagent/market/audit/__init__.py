"""What an operator may ask of a node's market data: is it all there, what was missing, store it again, do feeds agree.

Programs of their own (`python -m nodeagent.market.audit`), beside the feed and never in it: they read the capture and
the tables, and write rows through the same writer as the feed. They never write to a capture.
"""
