from agentfarm.wire import market_pb2 as _market_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReplicaState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLICA_STATE_UNSPECIFIED: _ClassVar[ReplicaState]
    REPLICA_STATE_STARTING: _ClassVar[ReplicaState]
    REPLICA_STATE_RUNNING: _ClassVar[ReplicaState]
    REPLICA_STATE_UNHEALTHY: _ClassVar[ReplicaState]
    REPLICA_STATE_STOPPING: _ClassVar[ReplicaState]
    REPLICA_STATE_STOPPED: _ClassVar[ReplicaState]
    REPLICA_STATE_FAILED: _ClassVar[ReplicaState]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_SUCCEEDED: _ClassVar[Outcome]
    OUTCOME_FAILED: _ClassVar[Outcome]
    OUTCOME_TIMED_OUT: _ClassVar[Outcome]
    OUTCOME_CANCELLED: _ClassVar[Outcome]
    OUTCOME_INTERRUPTED: _ClassVar[Outcome]

class CancelReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_REASON_UNSPECIFIED: _ClassVar[CancelReason]
    CANCEL_REASON_REQUESTED: _ClassVar[CancelReason]
    CANCEL_REASON_STALE: _ClassVar[CancelReason]
    CANCEL_REASON_MOVED: _ClassVar[CancelReason]
REPLICA_STATE_UNSPECIFIED: ReplicaState
REPLICA_STATE_STARTING: ReplicaState
REPLICA_STATE_RUNNING: ReplicaState
REPLICA_STATE_UNHEALTHY: ReplicaState
REPLICA_STATE_STOPPING: ReplicaState
REPLICA_STATE_STOPPED: ReplicaState
REPLICA_STATE_FAILED: ReplicaState
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_SUCCEEDED: Outcome
OUTCOME_FAILED: Outcome
OUTCOME_TIMED_OUT: Outcome
OUTCOME_CANCELLED: Outcome
OUTCOME_INTERRUPTED: Outcome
CANCEL_REASON_UNSPECIFIED: CancelReason
CANCEL_REASON_REQUESTED: CancelReason
CANCEL_REASON_STALE: CancelReason
CANCEL_REASON_MOVED: CancelReason

class NodeMessage(_message.Message):
    __slots__ = ("hello", "beat", "replica_report", "attempts_started", "attempt_results", "attempt_output", "log_end", "market_report")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    REPLICA_REPORT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_STARTED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_RESULTS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    LOG_END_FIELD_NUMBER: _ClassVar[int]
    MARKET_REPORT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    beat: Beat
    replica_report: ReplicaReport
    attempts_started: AttemptsStarted
    attempt_results: AttemptResults
    attempt_output: AttemptOutput
    log_end: LogEnd
    market_report: _market_pb2.MarketReport
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., replica_report: _Optional[_Union[ReplicaReport, _Mapping]] = ..., attempts_started: _Optional[_Union[AttemptsStarted, _Mapping]] = ..., attempt_results: _Optional[_Union[AttemptResults, _Mapping]] = ..., attempt_output: _Optional[_Union[AttemptOutput, _Mapping]] = ..., log_end: _Optional[_Union[LogEnd, _Mapping]] = ..., market_report: _Optional[_Union[_market_pb2.MarketReport, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "daemon_version", "daemon_epoch", "capacity", "labels", "capabilities", "measured", "replicas", "running_tokens", "finished_tokens", "metrics_address", "services", "has_services", "products", "takes_products", "market_source")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    DAEMON_VERSION_FIELD_NUMBER: _ClassVar[int]
    DAEMON_EPOCH_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    HAS_SERVICES_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    TAKES_PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    MARKET_SOURCE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    daemon_version: str
    daemon_epoch: int
    capacity: Capacity
    labels: _containers.ScalarMap[str, str]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    measured: Measured
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaStatus]
    running_tokens: _containers.RepeatedScalarFieldContainer[int]
    finished_tokens: _containers.RepeatedScalarFieldContainer[int]
    metrics_address: str
    services: _containers.RepeatedCompositeFieldContainer[ServiceHello]
    has_services: bool
    products: _containers.RepeatedScalarFieldContainer[str]
    takes_products: bool
    market_source: str
    def __init__(self, protocol: _Optional[int] = ..., daemon_version: _Optional[str] = ..., daemon_epoch: _Optional[int] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., capabilities: _Optional[_Iterable[str]] = ..., measured: _Optional[_Union[Measured, _Mapping]] = ..., replicas: _Optional[_Iterable[_Union[ReplicaStatus, _Mapping]]] = ..., running_tokens: _Optional[_Iterable[int]] = ..., finished_tokens: _Optional[_Iterable[int]] = ..., metrics_address: _Optional[str] = ..., services: _Optional[_Iterable[_Union[ServiceHello, _Mapping]]] = ..., has_services: _Optional[bool] = ..., products: _Optional[_Iterable[str]] = ..., takes_products: _Optional[bool] = ..., market_source: _Optional[str] = ...) -> None: ...

class ServiceHello(_message.Message):
    __slots__ = ("name", "payload")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    name: str
    payload: bytes
    def __init__(self, name: _Optional[str] = ..., payload: _Optional[bytes] = ...) -> None: ...

class ServiceDesired(_message.Message):
    __slots__ = ("name", "payload")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    name: str
    payload: bytes
    def __init__(self, name: _Optional[str] = ..., payload: _Optional[bytes] = ...) -> None: ...

class ServiceReport(_message.Message):
    __slots__ = ("name", "payload")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    name: str
    payload: bytes
    def __init__(self, name: _Optional[str] = ..., payload: _Optional[bytes] = ...) -> None: ...

class Capacity(_message.Message):
    __slots__ = ("cpu_millicores", "memory_mib", "gpus")
    CPU_MILLICORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    cpu_millicores: int
    memory_mib: int
    gpus: int
    def __init__(self, cpu_millicores: _Optional[int] = ..., memory_mib: _Optional[int] = ..., gpus: _Optional[int] = ...) -> None: ...

class Measured(_message.Message):
    __slots__ = ("memory_available_mib", "cpu_used_millicores", "disk_free_mib", "market_rows", "market_lag_ms", "market_state")
    MEMORY_AVAILABLE_MIB_FIELD_NUMBER: _ClassVar[int]
    CPU_USED_MILLICORES_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_MIB_FIELD_NUMBER: _ClassVar[int]
    MARKET_ROWS_FIELD_NUMBER: _ClassVar[int]
    MARKET_LAG_MS_FIELD_NUMBER: _ClassVar[int]
    MARKET_STATE_FIELD_NUMBER: _ClassVar[int]
    memory_available_mib: int
    cpu_used_millicores: int
    disk_free_mib: int
    market_rows: int
    market_lag_ms: int
    market_state: str
    def __init__(self, memory_available_mib: _Optional[int] = ..., cpu_used_millicores: _Optional[int] = ..., disk_free_mib: _Optional[int] = ..., market_rows: _Optional[int] = ..., market_lag_ms: _Optional[int] = ..., market_state: _Optional[str] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("seq", "measured", "services")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    seq: int
    measured: Measured
    services: _containers.RepeatedCompositeFieldContainer[ServiceReport]
    def __init__(self, seq: _Optional[int] = ..., measured: _Optional[_Union[Measured, _Mapping]] = ..., services: _Optional[_Iterable[_Union[ServiceReport, _Mapping]]] = ...) -> None: ...

class ReplicaReport(_message.Message):
    __slots__ = ("replicas",)
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaStatus]
    def __init__(self, replicas: _Optional[_Iterable[_Union[ReplicaStatus, _Mapping]]] = ...) -> None: ...

class ReplicaStatus(_message.Message):
    __slots__ = ("replica_id", "state", "reason", "detail", "pid", "restarts", "private_mib", "ready_ms")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_MIB_FIELD_NUMBER: _ClassVar[int]
    READY_MS_FIELD_NUMBER: _ClassVar[int]
    replica_id: int
    state: ReplicaState
    reason: str
    detail: str
    pid: int
    restarts: int
    private_mib: int
    ready_ms: int
    def __init__(self, replica_id: _Optional[int] = ..., state: _Optional[_Union[ReplicaState, str]] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., pid: _Optional[int] = ..., restarts: _Optional[int] = ..., private_mib: _Optional[int] = ..., ready_ms: _Optional[int] = ...) -> None: ...

class AttemptsStarted(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class AttemptResults(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[AttemptResult]
    def __init__(self, results: _Optional[_Iterable[_Union[AttemptResult, _Mapping]]] = ...) -> None: ...

class AttemptResult(_message.Message):
    __slots__ = ("task_id", "fencing_token", "outcome", "output", "error_type", "error_message", "error_traceback", "duration_us", "replica_id")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    DURATION_US_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    fencing_token: int
    outcome: Outcome
    output: bytes
    error_type: str
    error_message: str
    error_traceback: str
    duration_us: int
    replica_id: int
    def __init__(self, task_id: _Optional[int] = ..., fencing_token: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., output: _Optional[bytes] = ..., error_type: _Optional[str] = ..., error_message: _Optional[str] = ..., error_traceback: _Optional[str] = ..., duration_us: _Optional[int] = ..., replica_id: _Optional[int] = ...) -> None: ...

class AttemptOutput(_message.Message):
    __slots__ = ("task_id", "fencing_token", "seq", "data")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    fencing_token: int
    seq: int
    data: bytes
    def __init__(self, task_id: _Optional[int] = ..., fencing_token: _Optional[int] = ..., seq: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class LogEnd(_message.Message):
    __slots__ = ("request_id", "problem")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    problem: str
    def __init__(self, request_id: _Optional[int] = ..., problem: _Optional[str] = ...) -> None: ...

class ControllerMessage(_message.Message):
    __slots__ = ("welcome", "beat_ack", "desired", "assign", "cancel_attempts", "results_ack", "log_request", "log_stop", "feed_request", "recall_attempts", "service_request")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    BEAT_ACK_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    ASSIGN_FIELD_NUMBER: _ClassVar[int]
    CANCEL_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_ACK_FIELD_NUMBER: _ClassVar[int]
    LOG_REQUEST_FIELD_NUMBER: _ClassVar[int]
    LOG_STOP_FIELD_NUMBER: _ClassVar[int]
    FEED_REQUEST_FIELD_NUMBER: _ClassVar[int]
    RECALL_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    beat_ack: BeatAck
    desired: Desired
    assign: Assign
    cancel_attempts: CancelAttempts
    results_ack: ResultsAck
    log_request: LogRequest
    log_stop: LogStop
    feed_request: FeedRequest
    recall_attempts: RecallAttempts
    service_request: ServiceRequest
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., beat_ack: _Optional[_Union[BeatAck, _Mapping]] = ..., desired: _Optional[_Union[Desired, _Mapping]] = ..., assign: _Optional[_Union[Assign, _Mapping]] = ..., cancel_attempts: _Optional[_Union[CancelAttempts, _Mapping]] = ..., results_ack: _Optional[_Union[ResultsAck, _Mapping]] = ..., log_request: _Optional[_Union[LogRequest, _Mapping]] = ..., log_stop: _Optional[_Union[LogStop, _Mapping]] = ..., feed_request: _Optional[_Union[FeedRequest, _Mapping]] = ..., recall_attempts: _Optional[_Union[RecallAttempts, _Mapping]] = ..., service_request: _Optional[_Union[ServiceRequest, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "controller_epoch", "beat_interval_ms", "unreachable_after_ms", "reissue_after_ms", "stop_exclusive_after_ms", "has_services")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    BEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    REISSUE_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    STOP_EXCLUSIVE_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    HAS_SERVICES_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    controller_epoch: int
    beat_interval_ms: int
    unreachable_after_ms: int
    reissue_after_ms: int
    stop_exclusive_after_ms: int
    has_services: bool
    def __init__(self, protocol: _Optional[int] = ..., controller_epoch: _Optional[int] = ..., beat_interval_ms: _Optional[int] = ..., unreachable_after_ms: _Optional[int] = ..., reissue_after_ms: _Optional[int] = ..., stop_exclusive_after_ms: _Optional[int] = ..., has_services: _Optional[bool] = ...) -> None: ...

class BeatAck(_message.Message):
    __slots__ = ("seq",)
    SEQ_FIELD_NUMBER: _ClassVar[int]
    seq: int
    def __init__(self, seq: _Optional[int] = ...) -> None: ...

class Desired(_message.Message):
    __slots__ = ("generation", "replicas", "services", "market")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    MARKET_FIELD_NUMBER: _ClassVar[int]
    generation: int
    replicas: _containers.RepeatedCompositeFieldContainer[DesiredReplica]
    services: _containers.RepeatedCompositeFieldContainer[ServiceDesired]
    market: DesiredMarket
    def __init__(self, generation: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[DesiredReplica, _Mapping]]] = ..., services: _Optional[_Iterable[_Union[ServiceDesired, _Mapping]]] = ..., market: _Optional[_Union[DesiredMarket, _Mapping]] = ...) -> None: ...

class DesiredMarket(_message.Message):
    __slots__ = ("products",)
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    products: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, products: _Optional[_Iterable[str]] = ...) -> None: ...

class DesiredReplica(_message.Message):
    __slots__ = ("replica_id", "deployment", "seat", "version", "bundle_digest", "spec_json", "stopping")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    SEAT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SPEC_JSON_FIELD_NUMBER: _ClassVar[int]
    STOPPING_FIELD_NUMBER: _ClassVar[int]
    replica_id: int
    deployment: str
    seat: int
    version: int
    bundle_digest: str
    spec_json: str
    stopping: bool
    def __init__(self, replica_id: _Optional[int] = ..., deployment: _Optional[str] = ..., seat: _Optional[int] = ..., version: _Optional[int] = ..., bundle_digest: _Optional[str] = ..., spec_json: _Optional[str] = ..., stopping: _Optional[bool] = ...) -> None: ...

class Assign(_message.Message):
    __slots__ = ("assignments",)
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    def __init__(self, assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("task_id", "attempt", "fencing_token", "replica_id", "input", "run_timeout_ms", "thread_id", "exclusive")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    RUN_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    attempt: int
    fencing_token: int
    replica_id: int
    input: bytes
    run_timeout_ms: int
    thread_id: str
    exclusive: bool
    def __init__(self, task_id: _Optional[int] = ..., attempt: _Optional[int] = ..., fencing_token: _Optional[int] = ..., replica_id: _Optional[int] = ..., input: _Optional[bytes] = ..., run_timeout_ms: _Optional[int] = ..., thread_id: _Optional[str] = ..., exclusive: _Optional[bool] = ...) -> None: ...

class CancelAttempts(_message.Message):
    __slots__ = ("tokens", "reason")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    reason: CancelReason
    def __init__(self, tokens: _Optional[_Iterable[int]] = ..., reason: _Optional[_Union[CancelReason, str]] = ...) -> None: ...

class RecallAttempts(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class ResultsAck(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class LogRequest(_message.Message):
    __slots__ = ("request_id", "replica_id", "tail_lines", "follow")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    replica_id: int
    tail_lines: int
    follow: bool
    def __init__(self, request_id: _Optional[int] = ..., replica_id: _Optional[int] = ..., tail_lines: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class ServiceRequest(_message.Message):
    __slots__ = ("request_id", "name", "payload")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    name: str
    payload: bytes
    def __init__(self, request_id: _Optional[int] = ..., name: _Optional[str] = ..., payload: _Optional[bytes] = ...) -> None: ...

class FeedRequest(_message.Message):
    __slots__ = ("request_id", "verb", "arguments_json")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    verb: str
    arguments_json: str
    def __init__(self, request_id: _Optional[int] = ..., verb: _Optional[str] = ..., arguments_json: _Optional[str] = ...) -> None: ...

class LogStop(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    def __init__(self, request_id: _Optional[int] = ...) -> None: ...

class FetchBundleRequest(_message.Message):
    __slots__ = ("digest", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class FetchBundleResponse(_message.Message):
    __slots__ = ("total_size", "data")
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    total_size: int
    data: bytes
    def __init__(self, total_size: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class AgentCallRequest(_message.Message):
    __slots__ = ("method", "task_id", "fencing_token", "replica_id", "header", "parts")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    method: str
    task_id: int
    fencing_token: int
    replica_id: int
    header: bytes
    parts: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, method: _Optional[str] = ..., task_id: _Optional[int] = ..., fencing_token: _Optional[int] = ..., replica_id: _Optional[int] = ..., header: _Optional[bytes] = ..., parts: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AgentCallResponse(_message.Message):
    __slots__ = ("parts",)
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, parts: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("thread_id", "namespace", "checkpoint_id", "parent_id", "payload", "writes")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    namespace: str
    checkpoint_id: str
    parent_id: str
    payload: bytes
    writes: _containers.RepeatedCompositeFieldContainer[CheckpointWrite]
    def __init__(self, thread_id: _Optional[str] = ..., namespace: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., parent_id: _Optional[str] = ..., payload: _Optional[bytes] = ..., writes: _Optional[_Iterable[_Union[CheckpointWrite, _Mapping]]] = ...) -> None: ...

class CheckpointWrite(_message.Message):
    __slots__ = ("writer_id", "index", "payload")
    WRITER_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    writer_id: str
    index: int
    payload: bytes
    def __init__(self, writer_id: _Optional[str] = ..., index: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class PutCheckpointRequest(_message.Message):
    __slots__ = ("fencing_token", "task_id", "checkpoint")
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    fencing_token: int
    task_id: int
    checkpoint: Checkpoint
    def __init__(self, fencing_token: _Optional[int] = ..., task_id: _Optional[int] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ...) -> None: ...

class PutCheckpointResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCheckpointsRequest(_message.Message):
    __slots__ = ("fencing_token", "task_id", "thread_id", "namespace", "checkpoint_id", "before_id", "limit")
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    BEFORE_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    fencing_token: int
    task_id: int
    thread_id: str
    namespace: str
    checkpoint_id: str
    before_id: str
    limit: int
    def __init__(self, fencing_token: _Optional[int] = ..., task_id: _Optional[int] = ..., thread_id: _Optional[str] = ..., namespace: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., before_id: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class GetCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ...) -> None: ...

class PushLogRequest(_message.Message):
    __slots__ = ("request_id", "lines")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    lines: bytes
    def __init__(self, request_id: _Optional[int] = ..., lines: _Optional[bytes] = ...) -> None: ...

class PushLogResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RenewCertificateRequest(_message.Message):
    __slots__ = ("csr_pem",)
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    csr_pem: bytes
    def __init__(self, csr_pem: _Optional[bytes] = ...) -> None: ...

class RenewCertificateResponse(_message.Message):
    __slots__ = ("certificate_pem",)
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: bytes
    def __init__(self, certificate_pem: _Optional[bytes] = ...) -> None: ...
