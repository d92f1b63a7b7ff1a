from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ProductState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRODUCT_STATE_UNSPECIFIED: _ClassVar[ProductState]
    PRODUCT_STATE_STARTING: _ClassVar[ProductState]
    PRODUCT_STATE_GOOD: _ClassVar[ProductState]
    PRODUCT_STATE_DOUBTFUL: _ClassVar[ProductState]
    PRODUCT_STATE_FAILED: _ClassVar[ProductState]
PRODUCT_STATE_UNSPECIFIED: ProductState
PRODUCT_STATE_STARTING: ProductState
PRODUCT_STATE_GOOD: ProductState
PRODUCT_STATE_DOUBTFUL: ProductState
PRODUCT_STATE_FAILED: ProductState

class MarketHello(_message.Message):
    __slots__ = ("products", "takes_products", "source", "measured")
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    TAKES_PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    products: _containers.RepeatedScalarFieldContainer[str]
    takes_products: bool
    source: str
    measured: MarketMeasured
    def __init__(self, products: _Optional[_Iterable[str]] = ..., takes_products: _Optional[bool] = ..., source: _Optional[str] = ..., measured: _Optional[_Union[MarketMeasured, _Mapping]] = ...) -> None: ...

class MarketMeasured(_message.Message):
    __slots__ = ("state", "rows", "lag_ms")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LAG_MS_FIELD_NUMBER: _ClassVar[int]
    state: str
    rows: int
    lag_ms: int
    def __init__(self, state: _Optional[str] = ..., rows: _Optional[int] = ..., lag_ms: _Optional[int] = ...) -> None: ...

class MarketDesired(_message.Message):
    __slots__ = ("products",)
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    products: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, products: _Optional[_Iterable[str]] = ...) -> None: ...

class MarketReport(_message.Message):
    __slots__ = ("products", "products_unchanged", "measured")
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    products: _containers.RepeatedCompositeFieldContainer[ProductStatus]
    products_unchanged: bool
    measured: MarketMeasured
    def __init__(self, products: _Optional[_Iterable[_Union[ProductStatus, _Mapping]]] = ..., products_unchanged: _Optional[bool] = ..., measured: _Optional[_Union[MarketMeasured, _Mapping]] = ...) -> None: ...

class ProductStatus(_message.Message):
    __slots__ = ("product", "state", "reason")
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    product: str
    state: ProductState
    reason: str
    def __init__(self, product: _Optional[str] = ..., state: _Optional[_Union[ProductState, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class MarketQuestion(_message.Message):
    __slots__ = ("verb", "arguments")
    class ArgumentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERB_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    verb: str
    arguments: _containers.ScalarMap[str, str]
    def __init__(self, verb: _Optional[str] = ..., arguments: _Optional[_Mapping[str, str]] = ...) -> None: ...
