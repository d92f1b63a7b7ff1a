"""The smallest agent: answers with its input. Also what load tests use."""


async def main(payload: object) -> object:
    """Any JSON in, the same JSON out."""
    return payload
