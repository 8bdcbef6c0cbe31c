"""Who may run: the rule by which waiting jobs take their locks. Pure; ``queue`` brings the rows.

A lock is a resource with as many slots as its capacity. A job takes all its locks at once or none. Jobs are
considered oldest first. One that cannot run keeps its place in line for its locks in the order in which it lists
them, up to and including the first that is full: no younger job gets those slots. Locks listed after that one it
could not use yet, so they stay open to others. The oldest waiting job therefore only ever waits for jobs that
are running: nobody starves, and an idle node is not kept idle by a job whose site is busy elsewhere. Jobs that give
way (``core.jobs.GIVES_WAY``) are considered after all others, and have no place in line before any of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Lock:
    """One slot of a resource that has ``capacity`` of them."""

    resource: str
    capacity: int = 1

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"lock {self.resource} needs a capacity of at least 1, not {self.capacity}")


def site_lock(site_id: UUID) -> Lock:
    """One mutation per site at a time."""
    return Lock(f"site:{site_id}")


def node_lock(node_id: UUID, concurrency: int) -> Lock:
    """As many jobs per node as its document allows. List it after the site's lock."""
    return Lock(f"node:{node_id}", concurrency)


def drill_lock(node_id: UUID) -> Lock:
    """One drill per node at a time. List it before the site's lock: one that waits for it is in nobody's way."""
    return Lock(f"drill:{node_id}")


REPORTS = Lock("reports")
"""One drift report at a time: each is compared with what was sent of the one before."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job in line. Not ``wanted``: it keeps its place, but this worker doesn't take such jobs."""

    job_id: UUID
    locks: tuple[Lock, ...]
    wanted: bool = True


def fitting(waiting: Iterable[Waiting], held: Mapping[str, int]) -> Iterator[Waiting]:
    """The jobs that may run now, best first, given how many slots of each resource are held.

    Asking for another one means that the last was not taken; it then keeps its place like the rest.
    """
    taken = Counter(held)
    for job in waiting:
        full = _first_full(job.locks, taken)
        if full is None and job.wanted:
            yield job
        in_line = job.locks if full is None else job.locks[: full + 1]
        taken.update(lock.resource for lock in in_line)


def _first_full(locks: tuple[Lock, ...], taken: Mapping[str, int]) -> int | None:
    return next((i for i, lock in enumerate(locks) if taken.get(lock.resource, 0) >= lock.capacity), None)


def free_slot(lock: Lock, used: Collection[int]) -> int:
    """The lowest slot that nobody uses."""
    return next(slot for slot in range(lock.capacity) if slot not in used)
