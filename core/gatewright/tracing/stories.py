"""Whose each step of a Gateway is: what a trace tells of one request, picked out of everything else in it."""

from typing import Any, Generic, TypeVar

from attrs import define, field, frozen

from gatewright.commands import RecordRequest
from gatewright.events import RequestReceived
from gatewright.ids import CommandId, LeaseId, RequestId
from gatewright.leases import LeaseEngine
from gatewright.tracing.trace import TraceLine

Key = TypeVar("Key")


@frozen
class Part(Generic[Key]):
    """A step, as far as it concerns one request.

    Attributes:
        key: Names the step; given by whoever told of it.
        event: What the Gateway was told.
        commands: Those of its answer that concern the request.
    """

    key: Key
    event: object
    commands: tuple[object, ...]


@define(eq=False)
class Story(Generic[Key]):
    """What is known of one request.

    Attributes:
        request_id: Its id; None as long as only a lease of it was spoken of.
        steps: By their numbers: the key, the event, and the commands by their places in the whole answer.
    """

    request_id: RequestId | None = None
    steps: dict[int, tuple[Key, object, dict[int, object]]] = field(factory=dict, init=False)

    def add(self, number: int, key: Key, event: object, commands: dict[int, object]) -> None:
        """Something more is known.

        Args:
            number: Of the step.
            key: Names it for others.
            event: What the Gateway was told.
            commands: What it answered, by their places in the whole answer.
        """
        known = self.steps.get(number)
        self.steps[number] = (key, event, commands if known is None else known[2] | commands)

    def absorb(self, other: "Story[Key]") -> None:
        """The other one was of the same request."""
        for number, (key, event, commands) in other.steps.items():
            self.add(number, key, event, commands)

    @property
    def parts(self) -> tuple[Part[Key], ...]:
        """All of it, in order."""
        return tuple(
            Part(key, event, tuple(commands[place] for place in sorted(commands)))
            for _, (key, event, commands) in sorted(self.steps.items(), key=lambda item: item[0])
        )


class Stories(Generic[Key]):
    """Takes the steps of one Gateway in, and gives each request's out when it has come to its end.

    An event belongs to the request that it names, or whose lease or command it answers, and all that the Gateway
    commands upon it does too. What it commands when it wakes or shuts down may be for several requests, so there
    each command is looked at by itself; whose a new lease is shows then when it is answered or given back.
    """

    def __init__(self) -> None:
        self._count = 0
        self._by_request: dict[RequestId, Story[Key]] = {}
        self._by_lease: dict[LeaseId, Story[Key]] = {}
        self._by_command: dict[CommandId, Story[Key]] = {}

    def take(self, key: Key, line: TraceLine) -> list[Story[Key]]:
        """One step.

        Args:
            key: Names it.
            line: The step.

        Returns:
            Requests that have ended with it. What comes after its end is not part of any story.
        """
        self._count += 1
        story = self._story_of(line.event)
        if story is None and isinstance(line.event, RequestReceived):
            story = self._by_request[line.event.request_id] = Story(line.event.request_id)
        if story is not None:
            for command in line.commands:
                story = self._joined(story, self._story_of(command))
                self._note(story, command)
            story.add(self._count, key, line.event, dict(enumerate(line.commands)))
        else:
            self._take_each(key, line)
        ended = [command.request_id for command in line.commands if isinstance(command, RecordRequest)]
        return [self._forget(request_id) for request_id in ended if request_id in self._by_request]

    def rest(self) -> list[Story[Key]]:
        """Requests that have not ended."""
        return list(self._by_request.values())

    def _take_each(self, key: Key, line: TraceLine) -> None:
        for place, command in enumerate(line.commands):
            story = self._story_of(command)
            if story is None and isinstance(command, LeaseEngine):
                story = Story()
            if story is not None:
                self._note(story, command)
                story.add(self._count, key, line.event, {place: command})

    def _story_of(self, message: Any) -> Story[Key] | None:
        request_id = getattr(message, "request_id", None)
        if request_id is not None:
            return self._by_request.get(request_id)
        lease_id = getattr(message, "lease_id", None)
        if lease_id is not None:
            return self._by_lease.get(lease_id)
        return self._by_command.get(getattr(message, "command_id", CommandId(0)))

    def _note(self, story: Story[Key], command: Any) -> None:
        if hasattr(command, "lease_id"):
            self._by_lease[command.lease_id] = story
        if hasattr(command, "command_id"):
            self._by_command[command.command_id] = story

    def _joined(self, story: Story[Key], other: Story[Key] | None) -> Story[Key]:
        """The one story that two turn out to be: of a request that is known by name, and of a lease of it."""
        if other is None or other is story:
            return story
        if story.request_id is None:
            story, other = other, story
        story.absorb(other)
        self._by_lease |= {lease: story for lease, owner in self._by_lease.items() if owner is other}
        self._by_command |= {command: story for command, owner in self._by_command.items() if owner is other}
        return story

    def _forget(self, request_id: RequestId) -> Story[Key]:
        story = self._by_request.pop(request_id)
        self._by_lease = {lease: owner for lease, owner in self._by_lease.items() if owner is not story}
        self._by_command = {
            command: owner for command, owner in self._by_command.items() if owner is not story
        }
        return story
