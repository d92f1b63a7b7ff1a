"""A few frames of each kind, in the words of the venues."""

from __future__ import annotations

from tests.unit.market.venue import Venue


def _advanced() -> list[bytes]:
    venue = Venue(1)
    return [*venue.opening(), *(venue.next_frame() for _ in range(20))]


ADVANCED_FRAMES = _advanced()

EXCHANGE_FRAMES = [
    b'{"type":"subscriptions","channels":[{"name":"level2_50","product_ids":["BTC-USD"],"account_ids":null}]}',
    (
        b'{"type":"snapshot","product_id":"BTC-USD","asks":[["63514.60","0.2"],["63519.29","0.05"]],'
        b'"bids":[["63510.00","1.5"],["63509.77","0.1"]],"time":"2026-08-09T21:05:48.000000Z"}'
    ),
    (
        b'{"type":"last_match","trade_id":100,"maker_order_id":"a","taker_order_id":"b","side":"buy","size":"0.002",'
        b'"price":"63510.00","product_id":"BTC-USD","sequence":1,"time":"2026-08-09T21:05:48.100000Z"}'
    ),
    (
        b'{"type":"l2update","product_id":"BTC-USD","changes":[["buy","63507.67","0.00000000"],["sell","63515.00","2"]],'
        b'"time":"2026-08-09T21:05:48.200000Z"}'
    ),
    (
        b'{"type":"match","trade_id":101,"maker_order_id":"c","taker_order_id":"d","side":"sell","size":"0.2",'
        b'"price":"63514.6","product_id":"BTC-USD","sequence":9,"time":"2026-08-09T21:05:48.300000Z"}'
    ),
    (
        b'{"type":"ticker","sequence":10,"product_id":"BTC-USD","price":"63514.6","open_24h":"1","volume_24h":"2867.5",'
        b'"best_bid":"63510.00","best_bid_size":"1.5","best_ask":"63514.60","best_ask_size":"0.2","side":"buy",'
        b'"time":"2026-08-09T21:05:48.300000Z","trade_id":101,"last_size":"0.2"}'
    ),
    b'{"type":"heartbeat","last_trade_id":101,"product_id":"BTC-USD","sequence":11,"time":"2026-08-09T21:05:49.0Z"}',
    (
        b'{"type":"open","sequence":12,"side":"sell","price":"63520.00","order_id":"o1","remaining_size":"2.25",'
        b'"product_id":"ETH-USD","time":"2026-08-09T21:05:49.100000Z"}'
    ),
    (
        b'{"type":"done","order_type":"limit","side":"sell","sequence":13,"order_id":"o1","reason":"canceled",'
        b'"product_id":"ETH-USD","time":"2026-08-09T21:05:49.200000Z","price":"63520.00","remaining_size":"0.2"}'
    ),
    (
        b'{"type":"status","products":[{"id":"BTC-USD","quote_increment":"0.01","base_increment":"0.00000001",'
        b'"status":"online"}],"currencies":[]}'
    ),
    b'{"type":"error","message":"Failed to subscribe","reason":"no such product"}',
]

BINANCE_FRAMES = [
    b'{"result":null,"id":1}',
    (
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1786309548100,"s":"BTCUSDT","t":100,"p":"63514.60000000",'
        b'"q":"0.00200000","T":1786309548099,"m":true,"M":true}}'
    ),
    (
        b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1786309548200,"s":"BTCUSDT","U":157,"u":160,'
        b'"b":[["63510.00000000","10.00000000"]],"a":[["63514.60000000","0.00000000"]]}}'
    ),
    (
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1786309548300,"s":"BTCUSDT","t":101,"p":"63514.61000000",'
        b'"q":"0.00100000","T":1786309548299,"m":false,"M":true}}'
    ),
    (
        b'{"stream":"btcusdt@ticker","data":{"e":"24hrTicker","E":1786309549000,"s":"BTCUSDT","p":"1.0","P":"0.1",'
        b'"c":"63514.61000000","Q":"0.00100000","b":"63510.00000000","B":"10.0","a":"63515.00000000","A":"3.0",'
        b'"v":"2867.54532609","L":101}}'
    ),
]
