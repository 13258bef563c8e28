"""What one server process holds: engine, judges, and the requests at work.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from ringfence.decoding import DECODERS
from ringfence.embedding import Embedder
from ringfence.engine import Engine
from ringfence.judges import Judge
from ringfence.server.admission import Admission
from ringfence.server.jobs import Job, Plan
from ringfence.server.metrics import Metrics
from ringfence.server.planning import Planner, Request
from ringfence.server.settings import ServerSettings


class Service:
    """Takes requests, and stops when told to."""

    def __init__(
        self,
        engine: Engine,
        judges: Mapping[str, Judge],
        settings: ServerSettings,
        embedder: Embedder | None = None,
    ) -> None:
        """Check the settings against what there is.

        Raises:
            InputError: defaults that cannot be honoured.
        """
        self.settings = settings
        self.planner = Planner(engine, judges, settings)
        self.admission = Admission(settings.concurrency, settings.queue)
        self.metrics = Metrics(self.admission)
        self.started = int(time.time())
        self._engine = engine
        self._embedder = embedder
        self._jobs: dict[asyncio.Task[None], Job] = {}

    async def plan(self, request: Request) -> Plan:
        """Check a request before it is let in.

        Raises:
            Failure: there is no room (429, 503), or something cannot be honoured.
        """
        try:
            self.admission.check()
        except Exception:
            self.metrics.request("rejected")
            raise
        return await self.planner.plan(request)

    def job(self, plan: Plan) -> Job:
        """A started job. Whoever asked for it must close it."""
        job = Job(self._engine, plan, self.admission, self.metrics, self._embedder)
        task = job.start()
        self._jobs[task] = job
        task.add_done_callback(self._jobs.pop)
        return job

    async def stop(self) -> None:
        """Let nobody in; wait for those inside, and at the deadline refuse them."""
        self.admission.stopping = True
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=self.settings.stop_seconds)
        for job in list(self._jobs.values()):
            job.break_off("the server is stopping")
        if self._jobs:
            await asyncio.wait(self._jobs)
        # Not before: what comes meanwhile is told that the server is stopping.
        self.planner.close()

    def about(self) -> dict[str, object]:
        """What this server is and does, for /v1/models."""
        planner, card = self.planner, self._engine.card
        return {
            "engine": card.name,
            "decoders": list(DECODERS) if planner.judges else ["plain"],
            "decoder": planner.decoder,
            "principles": list(planner.judges),
            "principle": None if planner.decoder == "plain" else planner.principle,
            "judged": planner.decoder != "plain",
            "notice": self.notice,
            "budget": self.settings.options.budget.model_dump(),
        }

    @property
    def context(self) -> int:
        """Longest prompt and reply together, in tokens."""
        return self._engine.card.context

    @property
    def notice(self) -> str:
        """In a sentence: what guards the replies."""
        planner = self.planner
        if not planner.judges:
            return "No principle is loaded: replies are decoded plainly and nothing judges them."
        if planner.decoder == "plain":
            return (
                "Replies are decoded plainly and nothing judges them, unless a request names "
                f"another decoder; loaded: {', '.join(planner.judges)}."
            )
        return f"Replies are decoded by {planner.decoder} under the principle {planner.principle}."
