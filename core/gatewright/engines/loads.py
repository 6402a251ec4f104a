"""What it would cost now to run an engine, for those who choose between models. Looks, and changes nothing."""

from collections.abc import Mapping

from gatewright.engines.circuits import Circuits
from gatewright.engines.engine import Engine
from gatewright.engines.scheduling import Place
from gatewright.engines.spec import EngineSpec
from gatewright.engines.states import Draining, Loading, Ready, Starting
from gatewright.leases import AskLoads, EngineLoad, LoadState


def loads_of(
    asked: AskLoads, places: Mapping[str, Place], circuits: Circuits, now: float
) -> tuple[EngineLoad, ...]:
    """The loads of the engines that were asked for.

    Args:
        asked: The question.
        places: Every place of which an engine was asked for, by name.
        circuits: Of remote upstreams.
        now: Seconds, monotonic.
    """
    return tuple(
        [
            _load(spec, places.get(spec.place), now, is_in_trouble=circuits.trouble(spec, now) is not None)
            for spec in asked.variants
        ]
    )


def _load(spec: EngineSpec, place: Place | None, now: float, *, is_in_trouble: bool) -> EngineLoad:
    engine = place.engines.get(spec) if place is not None else None
    state = LoadState.UNAVAILABLE if is_in_trouble else _state(spec, engine, now)
    return EngineLoad(
        model=spec.model,
        context_tokens=spec.context_tokens,
        state=state,
        free_slots=_free_slots(spec, engine),
        waiting=_waiting(place, engine),
        load_s=_load_s(spec, place),
        evicts=_evicted(spec, place),
    )


def _load_s(spec: EngineSpec, place: Place | None) -> float | None:
    """How long its last start took; where it never was started, the longest of the model's other engines, whose weights are the same."""
    if place is None:
        return None
    own = place.engines.get(spec)
    if own is not None and own.last_start_s is not None:
        return own.last_start_s
    starts = (engine.last_start_s for each, engine in place.engines.items() if each.model == spec.model)
    return max((start_s for start_s in starts if start_s is not None), default=None)


def _state(spec: EngineSpec, engine: Engine | None, now: float) -> LoadState:
    if spec.is_remote:
        return LoadState.READY
    if engine is None:
        return LoadState.STOPPED
    match engine.state:
        case Ready() | Draining():
            return LoadState.READY
        case Starting() | Loading():
            return LoadState.LOADING
        case _ if engine.start_failure(now) is not None:
            return LoadState.UNAVAILABLE
        case _:
            return LoadState.STOPPED


def _free_slots(spec: EngineSpec, engine: Engine | None) -> int | None:
    state = engine.state if engine is not None else None
    ready = state.ready if isinstance(state, Draining) else state
    slots = ready.slots if isinstance(ready, Ready) else spec.parallel
    if slots is None:
        return None
    return max(0, slots - (len(engine.leases) if engine is not None else 0))


def _waiting(place: Place | None, engine: Engine | None) -> int:
    """Requests before a new one: those for the engine itself, or all of its place where it has to take its turn."""
    if place is None:
        return 0
    if engine is None or place.current is not engine:
        return len(place.waiters)
    return sum(engine in waiter.engines for waiter in place.waiters.values())


def _evicted(spec: EngineSpec, place: Place | None) -> tuple[str, ...]:
    current = place.current if place is not None else None
    if current is None or current.spec == spec or current.spec.is_remote:
        return ()
    return (current.spec.label,)
