"""The shapes of what the commands give. Every key is described in ``docs/cli.md``; these are the ones that most programs read."""

from typing import Any, Dict, List, Optional

try:
    from typing import TypedDict
except ImportError:  # pragma: no cover
    from typing_extensions import TypedDict


class Diagnostic(TypedDict):
    """Something that is to be said of a recipe. ``line`` and ``column`` count from 1, and are 0 where there is no place."""

    code: str
    severity: str
    message: str
    file: Optional[str]
    line: int
    column: int
    length: int
    label: str
    help: Optional[str]


class Parameters(TypedDict):
    """Numbers of parameters."""

    total: int
    trainable: int


class Stage(TypedDict):
    """A planned stage. ``memory`` is in bytes, by class; ``fingerprint`` is what the store calls the result."""

    name: str
    kind: str
    methods: List[str]
    device: str
    fingerprint: Optional[str]
    cached: bool
    depends_on: List[str]
    batch: int
    micro_batch: int
    parameters: Parameters
    memory: Dict[str, Any]
    flops_per_step: float
    estimated_s: Optional[float]
    disk_bytes: int
    resumes_at: Optional[int]


class Report(TypedDict):
    """What ``check`` says of a recipe. ``fits`` is ``None`` without a budget or a card."""

    recipe: str
    peak_bytes: int
    fits: Optional[bool]
    budget_bytes: Optional[int]
    device_bytes: Optional[int]
    disk_bytes: Optional[int]
    stages: List[Stage]
    data: List[Dict[str, Any]]
    diagnostics: List[Diagnostic]


class Plan(TypedDict):
    """The compiled plan."""

    recipe: str
    stages: List[Stage]


class _StageResult(TypedDict):
    name: str
    kind: str
    fingerprint: Optional[str]
    cached: bool
    artifact: str


class StageResult(_StageResult, total=False):
    """What a stage came to. ``artifact`` is its folder in the store. The other keys are those of trainings and evaluations."""

    metrics: Dict[str, float]
    loss_first: Optional[float]
    loss_last: Optional[float]
    steps: int
    wall_s: float
    samples_per_s: float
    estimated_peak_bytes: int
    measured_peak_bytes: int


class Result(TypedDict):
    """The document of ``result.json``."""

    recipe: str
    stages: List[StageResult]


#: A line of progress: ``event`` says which, and the other keys are those of ``run --log-format json``.
Event = Dict[str, Any]
