-- Candles from our own trades, so that they agree with them. A minute without trades has no row.
-- vwap of any candle: turnover / volume.

CREATE MATERIALIZED VIEW IF NOT EXISTS candles_1m AS (
    SELECT ts, venue, product,
        first(price) open, max(price) high, min(price) low, last(price) close,
        sum(size) volume, sum(price::double * size::double) turnover, count() trades
    FROM trades SAMPLE BY 1m
) PARTITION BY DAY TTL 365 DAYS;

CREATE MATERIALIZED VIEW IF NOT EXISTS candles_5m AS (
    SELECT ts, venue, product,
        first(open) open, max(high) high, min(low) low, last(close) close,
        sum(volume) volume, sum(turnover) turnover, sum(trades) trades
    FROM candles_1m SAMPLE BY 5m
) PARTITION BY DAY TTL 365 DAYS;

CREATE MATERIALIZED VIEW IF NOT EXISTS candles_1h AS (
    SELECT ts, venue, product,
        first(open) open, max(high) high, min(low) low, last(close) close,
        sum(volume) volume, sum(turnover) turnover, sum(trades) trades
    FROM candles_5m SAMPLE BY 1h
) PARTITION BY MONTH TTL 10 YEARS;
