"""Updates on a real node: what is rehearsed, what is undone, and that a run can be killed anywhere."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.playbooks.environments import Hosting
from tests.playbooks.updated_site import UpdatedSite, speaking

pytestmark = [pytest.mark.lab, pytest.mark.in_order]
KEY = "updated/production"


@pytest.fixture(scope="module")
def hosting(own_hosting: Hosting) -> Hosting:
    """The common node, or one of this module's own."""
    return own_hosting


@pytest.fixture(scope="module")
def site(hosting: Hosting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpdatedSite]:
    hosting.apply(KEY).raise_if_failed()
    site = UpdatedSite(hosting, KEY, tmp_path_factory.mktemp("packages"), speaking("one"))
    assert "<i>one</i>" in site.page()
    yield site
    del hosting.environments[KEY]


def test_a_check_tells_and_changes_nothing_and_a_second_run_neither(site: UpdatedSite) -> None:
    before = site.fingerprint()
    site.declare("1.1", speaking("two"))
    assert site.again("--check", "--diff", playbook="rehearsal").raise_if_failed().changed == 1
    assert site.fingerprint() == before
    site.again(playbook="rehearsal").raise_if_failed()
    assert "<i>one</i>" in site.page()
    assert site.again().raise_if_failed().changed == 1, "only the role has something left to do"
    assert "<i>two</i>" in site.page()
    again = site.again().raise_if_failed()
    assert again.changed == 0, again.output
    assert site.is_clean()
    deep = site.hosting.look(KEY, deep=True).differences or ()
    assert [one for one in deep if one.area != "uploads"] == []


@pytest.mark.long
def test_killed_in_the_rehearsal_and_run_again(site: UpdatedSite) -> None:
    word = site.word
    site.declare("1.3", speaking("three"))
    site.kill_when(f"test -e /run/trueup-rehearsal-{site.hosting.short(KEY)}/fpm.sock")
    assert site.word == word
    site.again().raise_if_failed()
    assert "<i>three</i>" in site.page()
    assert site.is_clean()
    assert site.again().raise_if_failed().changed == 0


@pytest.mark.long
def test_killed_while_the_tables_change_and_run_again(site: UpdatedSite) -> None:
    site.declare("1.4", speaking("four"))
    site.kill_when(site.is_switched())
    site.again().raise_if_failed()
    assert "<i>four</i>" in site.page()
    assert site.is_clean()
    assert site.again().raise_if_failed().changed == 0


@pytest.mark.long
def test_killed_while_the_tables_change_and_taken_back(site: UpdatedSite) -> None:
    """The store says the former release again: its tables come back with it."""
    site.former, word = site.hosting.environments[KEY]["release"], site.word
    site.declare("1.5", "update_option('of_the_update', '1');" + speaking("five"))
    site.kill_when(site.is_switched())
    site.back()
    site.hosting.run("environment", KEY).raise_if_failed()
    assert site.word == word
    assert site.hosting.sql(KEY, "SELECT COUNT(*) FROM wp_options WHERE option_name = 'of_the_update'") == "0"
    assert [name for name in site.databases() if name.endswith(("_before", "_rehearsal"))] == []
    assert site.hosting.run("environment", KEY).raise_if_failed().changed == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("add_action('login_head', function () { die(); });", "/wp-login.php"),
        ("ob_start(function () { return ''; });", "white page"),
        ("if (!add_option('second', '1')) { http_response_code(500); die('no'); }", "answers 500"),
        ("while (true) { usleep(1000); }", "no answer"),
    ],
)
def test_what_the_rehearsal_catches(site: UpdatedSite, code: str, words: str) -> None:
    before = site.fingerprint()
    run = site.update("1.9", code)
    assert run.status != 0
    assert "UPDATE_UNHEALTHY" in run.output
    assert words in run.output, run.output
    assert site.fingerprint() == before
    site.back()


@pytest.mark.long
def test_an_update_of_a_release_that_is_not_there(site: UpdatedSite) -> None:
    before = site.fingerprint()
    site.declare("2.0", speaking("never"))
    site.hosting.environments[KEY]["release"]["made_from"] = str(uuid4())
    run = site.again()
    assert run.status != 0
    assert "Correct made_from" in run.output, run.output
    assert site.fingerprint() == before
    site.back()
