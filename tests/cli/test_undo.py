"""What a revert stands on without a node: somebody's word in a commit, the backup of former content, gone documents."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4, uuid5

import pytest

from reconciler.core.errors import Conflict, NotFound
from reconciler.core.jobs import JobStatus
from reconciler.home import Home, clock
from reconciler.operations.aftermath import wind_up
from reconciler.operations.confirming import is_confirmed, kept_content
from reconciler.operations.declaring import Actor
from reconciler.operations.undeclared import undeclared
from reconciler.records.backups import Backup
from reconciler.records.jobs import Job
from tests.controlplane import ControlPlane, MakeControlPlane, node_document, run_git, site_documents

ONE, TWO = (UUID(f"0000000{number}-0000-4000-8000-000000000000") for number in (1, 2))
PATH, KEY = "sites/acme/environments/production.yaml", "acme/production"
TRAILER = f"Trueup-Confirm: {KEY}"
ACTOR = Actor("Op", "op@example.com")


@pytest.fixture
def plane(control_plane: MakeControlPlane) -> ControlPlane:
    return control_plane({"nodes/web-1.yaml": node_document(), **site_documents("acme")}, start=False)


def _declare(plane: ControlPlane, content: UUID, message: str, more: str = "") -> str:
    text = site_documents("acme")[PATH] + f"  content: {{id: {content}}}\n{more}"
    return plane.clone.push({PATH: text}, message)


def _is_confirmed(home: Home, content: UUID) -> bool:
    return is_confirmed(home.state, home.state.fleet().environments_by_key[KEY], content)


def test_a_commit_confirms_the_content_that_it_brings_and_no_other(plane: ControlPlane) -> None:
    with plane.opened() as home:
        _declare(plane, ONE, f"One\n\n{TRAILER}")
        assert _is_confirmed(home, ONE)
        assert not _is_confirmed(home, TWO)
        _declare(plane, ONE, "Something else", "  files: locked\n")
        assert _is_confirmed(home, ONE), "a later commit leaves it as it is"
        two = _declare(plane, TWO, "Two")
        assert not _is_confirmed(home, TWO)
        _declare(plane, TWO, f"Too late\n\n{TRAILER}", "  files: locked\n")
        assert not _is_confirmed(home, TWO), "the content was there before"
        _declare(plane, TWO, "Back", "")
        run_git(plane.clone.path, "revert", "--no-edit", two, "-X", "theirs")
        run_git(plane.clone.path, "push", "-q", "origin", "HEAD:main")
        assert not _is_confirmed(home, ONE), "the word was for the time before"
        _declare(plane, TWO, f"For another one\n\n{TRAILER}x")
        assert not _is_confirmed(home, TWO)


def test_nobody_confirms_through_the_text_of_a_request(plane: ControlPlane) -> None:
    with plane.opened() as home:
        id_ = home.state.fleet().environments_by_key[KEY].id
        home.operations.deploy(id_, "git", f"https://git.example.com/a\n\n{TRAILER}\n", ACTOR)
        text = plane.git("log", "-1", "--format=%B", "main")
        assert TRAILER in text
        assert plane.git("log", "-1", "--format=%(trailers:key=Trueup-Confirm)", "main") == ""


def test_former_content_is_in_the_newest_full_backup_that_was_taken_of_it(plane: ControlPlane) -> None:
    environment, now = uuid4(), clock()

    def backup(minutes: int, **fields: object) -> Backup:
        row = {"environment_id": environment, "backup_scope": "full", "status": "completed", "content_id": ONE}
        return Backup(id=uuid4(), created_at=now + timedelta(minutes=minutes), **{**row, **fields})  # type: ignore[arg-type]

    good = backup(2)
    others = [
        backup(1),
        backup(3, status="expired"),
        backup(4, status="failed"),
        backup(5, backup_scope="db"),
        backup(6, content_id=TWO),
        backup(7, content_id=None),
        backup(8, environment_id=uuid4()),
    ]
    with plane.opened() as home:
        assert kept_content(home.state, environment, ONE) is None
        for one in (good, *others):
            home.records.backups.save(one)
        found = kept_content(home.state, environment, ONE)
        assert found is not None
        assert (found.backup_id, found.taken_at) == (good.id, good.created_at)


def test_only_a_document_that_went_is_undeclared(plane: ControlPlane) -> None:
    with plane.opened() as home:
        for key in (KEY, "acme/other", "nobody/production"):
            with pytest.raises(NotFound, match=f"No environment is named {key}"):
                undeclared(home.state, key)
        made = plane.git("rev-parse", "main")
        plane.clone.push({PATH: ""}, f"Empty\n\n{TRAILER}")
        plane.clone.push({PATH: ": ]"}, f"Unreadable\n\n{TRAILER}")
        with pytest.raises(NotFound):
            undeclared(home.state, KEY)
        plane.clone.push({PATH: site_documents("acme")[PATH]}, "Good again")
        id_ = home.state.fleet().environments_by_key[KEY].id

        run_git(plane.clone.path, "revert", "--no-edit", made)
        run_git(plane.clone.path, "push", "-q", "origin", "HEAD:main")
        found = undeclared(home.state, KEY)
        assert (found.environment.id, found.confirmed, found.commit) == (id_, False, plane.git("rev-parse", "main"))
        assert found.fleet.site_of(found.environment) is not None
        with pytest.raises(Conflict, match="--confirm acme"):
            home.operations.remove_undeclared(KEY, None, ACTOR)

        plane.clone.push({"nodes/web-1.yaml": node_document(), **site_documents("acme")}, "Once more")
        plane.clone.push({PATH: None}, f"Gone for good\n\n{TRAILER}")
        assert undeclared(home.state, KEY).confirmed


def test_what_went_unfit_or_is_needed_stays(plane: ControlPlane) -> None:
    with plane.opened() as home:
        id_ = home.state.fleet().environments_by_key[KEY].id
        spec = f"{{type: staging, node: web-1, source_environment: {id_}}}"
        copy = f"apiVersion: trueup/v1\nkind: Environment\nspec: {spec}\n"
        plane.clone.push({"sites/acme/environments/staging.yaml": copy}, "A copy")
        plane.clone.push({PATH: None}, "Gone")
        with pytest.raises(Conflict, match="is what acme/staging was made from"):
            undeclared(home.state, KEY)
        plane.clone.push({"sites/acme/environments/staging.yaml": "spec: 1"}, "Unfit")
        plane.clone.push({"sites/acme/environments/staging.yaml": None}, "Gone, too")
        with pytest.raises(Conflict, match="was unfit when"):
            undeclared(home.state, "acme/staging")
        moved = site_documents("acme")[PATH].replace("spec:", f"metadata: {{id: {id_}}}\nspec:")
        plane.clone.push({"sites/acme/environments/live.yaml": moved}, "Moved")
        with pytest.raises(Conflict, match="is declared as acme/live now"):
            undeclared(home.state, KEY)


def test_a_confirmed_return_that_is_stopped_is_put_back_and_not_tried_again(plane: ControlPlane) -> None:
    with plane.opened() as home:
        id_ = home.state.fleet().environments_by_key[KEY].id

        def follow_up(confirmed: UUID | None, *, began: bool = True) -> Job | None:
            job = home.records.jobs.get(home.operations.apply(id_, ACTOR, confirmed=confirmed))
            ended = replace(job, status=JobStatus.CANCELLED, started_at=clock() if began else None)
            wind_up(ended, home.state, clock())
            with suppress(NotFound):
                return home.records.jobs.get(uuid5(job.id, "aftermath"))
            return None

        back = follow_up(ONE)
        assert back is not None
        assert (back.job_type, back.environment_id) == ("reconcile", id_)
        assert (back.intent or {}).keys() >= {"after"}
        assert not {"confirmed"} & (back.intent or {}).keys()
        assert follow_up(None) is None
        assert follow_up(ONE, began=False) is None
