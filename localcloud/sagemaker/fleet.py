"""The model servers that serve, by endpoint: what InvokeEndpoint asks, and what a deployment replaces in one step."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from localcloud.sagemaker.servers import ModelServer


@dataclass
class LiveVariant:
    """A variant that serves.

    Attributes:
        name: Its name.
        weight: Its share of the traffic, relative to the other variants'.
        server: What serves it.
        serverless: Whether it is a serverless variant (its requests may be smaller).
        share: What these servers get of the variant's traffic; less than all while a deployment shifts it.
        in_flight: Requests that it is answering.
    """

    name: str
    weight: float
    server: ModelServer
    serverless: bool
    share: float = 1.0
    in_flight: int = 0


class UnknownEndpoint(Exception):
    """Indicates that no endpoint of that name serves."""


class UnknownVariant(Exception):
    """Indicates that the endpoint has no such variant."""


class Fleet:
    """Endpoints that serve."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._live: dict[str, list[LiveVariant]] = {}
        self._closing = False

    @contextlib.contextmanager
    def routed(self, endpoint: str, variant: str | None) -> Iterator[LiveVariant]:
        """Give the variant that answers a request: the one asked for, else one chosen by weight. It is not ended before the request is.

        Raises:
            UnknownEndpoint: No such endpoint serves.
            UnknownVariant: It has no such variant.
        """
        with self._change:
            live = _choose(self._live.get(endpoint), endpoint, variant)
            live.in_flight += 1
        try:
            yield live
        finally:
            with self._change:
                live.in_flight -= 1
                if live.in_flight == 0:
                    self._change.notify_all()

    def serving(self, endpoint: str) -> list[LiveVariant]:
        """Return what serves an endpoint."""
        with self._change:
            return list(self._live.get(endpoint, ()))

    def replace(self, endpoint: str, variants: list[LiveVariant]) -> list[LiveVariant]:
        """Let *variants* serve from now on, and alone; return those that served before, for `retire`."""
        with self._change:
            before = self._live.get(endpoint, [])
            for live in variants:
                live.share = 1.0
            self._live[endpoint] = variants
            return before

    def divide(self, endpoint: str, before: list[LiveVariant], coming: list[LiveVariant], shares: dict[str, float]) -> None:
        """Give *coming* these shares of the variants' traffic, by name, and *before* the rest."""
        with self._change:
            for live in coming:
                live.share = shares[live.name]
            for live in before:
                live.share = 1.0 - shares[live.name]
            self._live[endpoint] = [*before, *coming]

    def retire(self, variants: Iterable[LiveVariant], patience: float = 0.0) -> None:
        """End the servers of variants that no longer serve, once their requests are answered or *patience* seconds have passed."""
        variants = list(variants)
        with self._change:
            self._change.wait_for(lambda: self._closing or not any(live.in_flight for live in variants), patience)
        for live in variants:
            live.server.stop()

    def set_weights(self, endpoint: str, weights: dict[str, float]) -> None:
        """Change the shares of the traffic."""
        with self._change:
            for live in self._live.get(endpoint, []):
                live.weight = weights.get(live.name, live.weight)

    def remove(self, endpoint: str) -> None:
        """Stop serving an endpoint."""
        with self._change:
            variants = self._live.pop(endpoint, [])
        self.retire(variants)

    def stop(self) -> None:
        """Stop serving everything."""
        with self._change:
            self._closing = True
            variants = [live for variants in self._live.values() for live in variants]
            self._live = {}
            self._change.notify_all()
        self.retire(variants)


def _choose(variants: list[LiveVariant] | None, endpoint: str, wanted: str | None) -> LiveVariant:
    if not variants:
        raise UnknownEndpoint(endpoint)
    serving = [live for live in variants if live.share > 0]
    if wanted is not None:
        serving = [live for live in serving if live.name == wanted]
        if not serving:
            raise UnknownVariant(wanted)
    if len(serving) == 1:
        return serving[0]
    weights = [live.weight * live.share for live in serving]
    return random.choices(serving, weights if any(weights) else [live.share for live in serving])[0]


def start_all(servers: Iterable[ModelServer]) -> None:
    """Start several servers at once.

    Raises:
        DeploymentError: One cannot be started (the first in their order); none runs then.
    """
    servers = list(servers)
    with ThreadPoolExecutor(max_workers=len(servers), thread_name_prefix="deploy") as pool:
        starts = [pool.submit(server.start) for server in servers]
        errors = [start.exception() for start in starts]
    error = next((error for error in errors if error is not None), None)
    if error is not None:
        for server in servers:
            server.stop()
        raise error
