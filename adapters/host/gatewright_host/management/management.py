"""Who answers which management request."""

import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gatewright.accounting.spending import KeyFacts
from gatewright.api.endpoints import Endpoint, EndpointKind, Resource
from gatewright.api.errors import render_problem
from gatewright.config import Config
from gatewright.errors import (
    GatewrightError,
    NameTaken,
    NotFound,
    StoreUnavailable,
)
from gatewright.wire.fields import Headers
from gatewright.wire.server import RequestHead
from gatewright_host.management.answering import Reply, busy
from gatewright_host.management.asking import Asking, Office
from gatewright_host.store.vocabulary import Conflict, Missing, StoreError

logger: Final = logging.getLogger("gatewright.management")

_JSON: Final[Headers] = ((b"content-type", b"application/json"),)
_NO_STORE: Final = "This process has no store to manage"


class Management:
    """The management API of one serving process. Any thread may call it; it blocks for as long as the store does.

    Args:
        office: The process's; None where it has none.
        config: Tells the present configuration, registered models included.
    """

    def __init__(self, office: Office | None, config: Callable[[], Config]) -> None:
        self._office = office
        self._config = config

    def answer(
        self, endpoint: Endpoint, head: RequestHead, body: bytes, key: KeyFacts | None
    ) -> tuple[int, Headers, bytes]:
        """Answer one request.

        Args:
            endpoint: One of those `MANAGED`.
            head: Of the request.
            body: All of it.
            key: Whose rights it has; None for all.

        Returns:
            Status, headers and body.
        """
        if endpoint.kind is EndpointKind.METRICS:
            return self._show_metrics(head)
        method = "GET" if head.method == "HEAD" else head.method
        asked = Asking(
            method=method,
            target=endpoint.target,
            item=endpoint.item or "",
            body=body,
            key=key,
            find_config=self._config,
            find_office=self._find_office,
        )
        assert endpoint.resource is not None
        try:
            reply = _part(endpoint.resource)(asked)
        except GatewrightError as error:
            return render_problem(error.problem)
        except Missing as error:
            return render_problem(NotFound(str(error) or "There is none of this name").problem)
        except Conflict as error:
            return render_problem(NameTaken(str(error) or "There is one of this name already").problem)
        except StoreError as error:
            logger.warning("%s %s: %s", head.method, endpoint.target, error)
            return render_problem(busy(StoreUnavailable(f"The store cannot be used: {error}").problem, error))
        except Exception:
            logger.exception("%s %s failed: a defect of this program", head.method, endpoint.target)
            return render_problem(GatewrightError("the gateway failed; its log says more").problem)
        if reply.document is None:
            return reply.status, (), b""
        return reply.status, _JSON, msgspec.json.encode(reply.document)

    def _show_metrics(self, head: RequestHead) -> tuple[int, Headers, bytes]:
        metrics = self._office.metrics if self._office is not None else None
        if metrics is None:
            return render_problem(StoreUnavailable("This process keeps no figures").problem)
        headers, body = metrics.render(head.get("accept") or "")
        return 200, headers, body

    def _find_office(self) -> Office:
        if self._office is None:
            raise StoreUnavailable(_NO_STORE)
        return self._office


def _part(resource: Resource) -> Callable[[Asking], Reply]:
    """Who answers. Most need SQLAlchemy, for which no server's start has to wait."""
    from gatewright_host.management import (  # noqa: PLC0415  # see above
        experiments,
        feedback,
        keys,
        models,
        reports,
        scoring,
    )

    parts: Mapping[Resource, Callable[[Asking], Reply]] = {
        Resource.COMPLEXITY: scoring.score,
        Resource.MODELS: models.answer_collection,
        Resource.MODEL: models.answer_one,
        Resource.KEYS: keys.answer_collection,
        Resource.KEY: keys.answer_one,
        Resource.OWN_KEY: keys.show_own,
        Resource.FEEDBACK: feedback.take,
        Resource.EXPERIMENTS: experiments.answer_collection,
        Resource.EXPERIMENT: experiments.answer_one,
        Resource.REQUEST: reports.one_request,
        Resource.BUDGETS: reports.budgets,
        Resource.USAGE: reports.usage,
        Resource.RANKING: reports.ranking,
    }
    return parts[resource]
