"""How much one client on the network may ask for. The UNIX socket has no limits."""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

#: Clients that are remembered; the one that has been quiet longest is forgotten first.
_REMEMBERED = 10_000


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A token bucket: so many at once, and so many more each second."""

    burst: float
    per_second: float


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What one client may do, over TCP."""

    #: Requests, by token; without a valid one by address.
    requests: Rate = Rate(burst=200, per_second=20)
    #: Secrets that are wrong, by address, and orders that a role is too low for, by token.
    failures: Rate = Rate(burst=60, per_second=0.5)


#: Requests of one token that may be under way at one time, streams of events among them: they hold
#: connections, of which there are not many more.
AT_ONCE = 50


@dataclass
class _Bucket:
    left: float
    at: float


class Buckets:
    """A bucket for each client."""

    def __init__(self, rate: Rate, now: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._now = now
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait(self, client: str) -> float:
        """Seconds until the client may go on; 0 for now."""
        return max(0.0, (1.0 - self._fill(client).left) / self._rate.per_second)

    def take(self, client: str) -> None:
        """Counts one."""
        self._fill(client).left -= 1.0

    def _fill(self, client: str) -> _Bucket:
        now = self._now()
        bucket = self._buckets.pop(client, None) or _Bucket(self._rate.burst, now)
        grown = bucket.left + (now - bucket.at) * self._rate.per_second
        bucket.left, bucket.at = min(self._rate.burst, grown), now
        self._buckets[client] = bucket
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return bucket


class Limits:
    """Says whether a request over TCP is one too many."""

    def __init__(self, rates: Rates, now: Callable[[], float] = time.monotonic) -> None:
        self._requests = Buckets(rates.requests, now)
        self._failures = Buckets(rates.failures, now)
        self._under_way: Counter[str] = Counter()

    def admit(self, client: str) -> int:
        """Counts a request; whole seconds to wait when it is one too many, else 0."""
        wait = self._requests.wait(client)
        if wait == 0:
            self._requests.take(client)
        return math.ceil(wait)

    def begin(self, client: str) -> bool:
        """Counts a request that is under way; False when it is one too many."""
        if self._under_way[client] >= AT_ONCE:
            return False
        self._under_way[client] += 1
        return True

    def end(self, client: str) -> None:
        """It is over."""
        self._under_way[client] -= 1
        if not self._under_way[client]:
            del self._under_way[client]

    def barred(self, client: str) -> int:
        """Whole seconds to wait after too many failures; 0 when there were not."""
        return math.ceil(self._failures.wait(client))

    def failed(self, client: str) -> int:
        """Counts a failure; whole seconds to wait when it was one too many, else 0."""
        wait = self._failures.wait(client)
        if wait == 0:
            self._failures.take(client)
        return math.ceil(wait)
