"""Settings: what is accepted, what a wrong value says, and that no secret shows."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import URL, make_url

from worker.errors import SettingsError
from worker.settings import Settings
from worker.urls import broker_url, database_url, redis_client_url, without_secret

SECRET = "hunter2secret"
text_without_control = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1)


def test_an_empty_environment_gives_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has to be set: the database is a file in the home, given as an absolute path."""
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({"DATABASE_URL": "", "RUNWRIGHT_LEASE": " "})
    assert settings.database_url == f"sqlite:///{tmp_path}/.runwright/runwright.db"
    assert settings.lease == 10.0
    assert settings.openai_api_key is None


def test_values_are_read_by_their_variable() -> None:
    """Each variable reaches its field, converted and stripped."""
    settings = Settings.from_env(
        {
            "OPENAI_API_KEY": f" {SECRET}\n",
            "RUNWRIGHT_MAX_IN_FLIGHT": "7",
            "RUNWRIGHT_LOG_LEVEL": "debug",
            "RUNWRIGHT_TOOL_MODULES": "tools.mine, other.tools",
            "UNRELATED": "x",
        }
    )
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == SECRET
    assert settings.max_in_flight == 7
    assert settings.log_level == "DEBUG"
    assert settings.tool_modules == ("tools.mine", "other.tools")


def test_settings_are_frozen() -> None:
    """Nothing changes a process's settings after it has started."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().lease = 3.0  # type: ignore[misc]  # the error under test


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("RUNWRIGHT_LEASE", "0.2", "RUNWRIGHT_LEASE=0.2: should be greater than or equal to 1"),
        ("RUNWRIGHT_LEASE", "nan", "RUNWRIGHT_LEASE=nan: should be a finite number"),
        ("RUNWRIGHT_MAX_STEPS", "many", "RUNWRIGHT_MAX_STEPS=many: should be a valid integer"),
        ("RUNWRIGHT_MAX_ATTEMPTS", "0", "RUNWRIGHT_MAX_ATTEMPTS=0: should be greater than 0"),
        ("RUNWRIGHT_LOG_LEVEL", "loud", "RUNWRIGHT_LOG_LEVEL=loud: should be 'DEBUG', 'INFO'"),
        ("RUNWRIGHT_POLL_MAX", "0.01", "RUNWRIGHT_POLL_MAX=0.01: must not be below RUNWRIGHT_POLL_MIN=0.05"),
        ("RUNWRIGHT_RETRY_MIN", "301", "RUNWRIGHT_RETRY_MAX=300.0: must not be below RUNWRIGHT_RETRY_MIN=301.0"),
        ("RUNWRIGHT_TOOL_MODULES", "a.b,../c", "RUNWRIGHT_TOOL_MODULES=a.b,../c: accepted are module names"),
        ("RUNWRIGHT_HOME", "~no-such-user/x", "RUNWRIGHT_HOME=~no-such-user/x: accepted is the path of a folder"),
        ("RUNWRIGHT_PRICES", "/no/such/file", "RUNWRIGHT_PRICES=/no/such/file: Path does not point to a file"),
        ("RUNWRIGHT_RESULT_BACKEND", "rediss", "RUNWRIGHT_RESULT_BACKEND: accepted are redis"),
        ("RUNWRIGHT_LEASSE", "2", "RUNWRIGHT_LEASSE: there is no such setting; did you mean RUNWRIGHT_LEASE?"),
        ("RUNWRIGHT_XQZ", "2", "RUNWRIGHT_XQZ: there is no such setting; docs/reference.md lists them"),
        ("OPENAI_BASE_URL", "api.openai.com", "OPENAI_BASE_URL: accepted is an http:// or https:// URL"),
    ],
)
def test_a_wrong_value_is_one_line_with_variable_value_and_what_is_accepted(
    variable: str, value: str, says: str
) -> None:
    """The start stops with a line that a person can act on."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({variable: value})
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
    assert "database_url" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [
        ("DATABASE_URL", f"mysql://user:{SECRET}@host/db", "mysql://…"),
        ("DATABASE_URL", f"postgresql+psycopg2://user:{SECRET}@host/db", "postgresql+psycopg2://…"),
        ("DATABASE_URL", f"postgresql://user:{SECRET}@host:port/db", "postgresql://…"),
        ("DATABASE_URL", f"user:{SECRET}@host/db", "DATABASE_URL:"),
        ("DATABASE_URL", "sqlite://", "needs a file"),
        ("DATABASE_URL", "sqlite:///:memory:", "needs a file"),
        ("DATABASE_URL", "sqlite://relative.db", "sqlite:///PATH"),
        ("REDIS_URL", f"amqp://user:{SECRET}@host", "amqp://…"),
        ("REDIS_URL", f"redis://:{SECRET}@host:6379/zero", "redis://…"),
        ("REDIS_URL", f"redis://:{SECRET}@host:66666/0", "redis://…"),
        ("OPENAI_BASE_URL", f"ftp://user:{SECRET}@host", "ftp://…"),
    ],
)
def test_a_wrong_url_shows_its_scheme_only(variable: str, value: str, shown: str) -> None:
    """What cannot be read may hold a password anywhere, so nothing after the scheme is shown."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({variable: value})
    assert variable in str(caught.value)
    assert shown in str(caught.value)
    assert SECRET not in str(caught.value)


def test_two_wrong_values_are_named_together() -> None:
    """Nobody mends one variable only to hear of the next."""
    with pytest.raises(SettingsError, match=r"RUNWRIGHT_LEASE=0: .*; RUNWRIGHT_IDLE_POLL=-1: "):
        Settings.from_env({"RUNWRIGHT_LEASE": "0", "RUNWRIGHT_IDLE_POLL": "-1"})


def test_no_secret_shows_in_the_representation() -> None:
    """Settings may be logged or end in a traceback."""
    settings = Settings.from_env(
        {
            "OPENAI_API_KEY": SECRET,
            "DATABASE_URL": f"postgresql://user:{SECRET}@host/db",
            "REDIS_URL": f"redis://:{SECRET}@host",
            "RUNWRIGHT_RESULT_BACKEND": f"redis://:{SECRET}@other",
        }
    )
    assert SECRET not in f"{settings} {settings!r}"
    assert SECRET in settings.broker_url()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_reached_through_psycopg_3(scheme: str) -> None:
    """Every way hosters write the scheme means the one driver that is installed."""
    settings = Settings.from_env({"DATABASE_URL": f"{scheme}://user:p%40ss@host:5433/db"})
    assert make_url(settings.database_url) == URL.create(
        "postgresql+psycopg", "user", "p@ss", "host", port=5433, database="db"
    )


@pytest.mark.parametrize(
    ("given_url", "celery_url", "client_url"),
    [
        ("redis://host", "redis://host", "redis://host"),
        ("redis://:pw@[::1]:6380/3", "redis://:pw@[::1]:6380/3", "redis://:pw@[::1]:6380/3"),
        ("rediss://host/1", "rediss://host/1?ssl_cert_reqs=required", "rediss://host/1?ssl_cert_reqs=required"),
        ("unix:///run/redis.sock?db=2", "redis+socket:///run/redis.sock?virtual_host=2", "unix:///run/redis.sock?db=2"),
        ("redis+socket:///r.sock", "redis+socket:///r.sock?virtual_host=0", "unix:///r.sock?db=0"),
    ],
)
def test_a_broker_url_takes_celery_s_form_and_redis_py_s(given_url: str, celery_url: str, client_url: str) -> None:
    """Both libraries reach the same server and database number; the form is stable."""
    assert broker_url(given_url) == celery_url
    assert broker_url(celery_url) == celery_url
    assert redis_client_url(celery_url) == client_url


def test_without_a_broker_the_error_says_how_to_get_one(tmp_path: Path) -> None:
    """A process other than `up` and `demo` starts no server by itself."""
    with pytest.raises(SettingsError, match=r"^REDIS_URL: not set and no embedded server .* `runwright up` or set"):
        Settings(home=tmp_path).broker_url()


@pytest.mark.parametrize(
    ("value", "url"), [("redis", "redis://host/1"), ("none", None), ("redis://other/2", "redis://other/2")]
)
def test_the_result_backend_is_the_broker_another_server_or_none(value: str, url: str | None) -> None:
    """Where a run's end is stored for AsyncResult follows RUNWRIGHT_RESULT_BACKEND."""
    settings = Settings.from_env({"REDIS_URL": "redis://host/1", "RUNWRIGHT_RESULT_BACKEND": value})
    assert settings.result_backend_url() == url


def test_every_setting_is_described() -> None:
    """The reference is written from these: a variable, its default, a sentence."""
    described = Settings.described()
    assert len(described) == len(Settings.model_fields)
    assert all(setting.variable.isupper() and setting.default for setting in described)
    assert all(setting.description.endswith(".") for setting in described)
    assert {setting.variable: setting.default for setting in described}["DATABASE_URL"].startswith("sqlite:///<")


@given(user=text_without_control, password=text_without_control, host=st.sampled_from(["h", "h:1", "[::1]:2"]))
def test_without_secret_shows_no_password_that_an_engine_would_accept(user: str, password: str, host: str) -> None:
    """Whatever the password is made of, it does not show; the host does."""
    password = f"<{password}>"
    url = database_url(URL.create("postgresql", user, password).render_as_string(hide_password=False) + host + "/db")
    assert make_url(url).password == password
    shown = without_secret(url)
    assert url.split("://", 1)[1].split("@")[0].split(":", 1)[1] not in shown
    assert shown.endswith(f":***@{host}/db")


@pytest.mark.parametrize("query", [f"password={SECRET}", f"a=1&sslPassword={SECRET}", f"api_key={SECRET}&b=2"])
def test_without_secret_masks_passwords_in_queries(query: str) -> None:
    """libpq and redis-py take passwords there as well."""
    assert SECRET not in without_secret(f"postgresql://host/db?{query}")


@pytest.mark.parametrize("url", ["sqlite:////a/b@c.db", "redis+socket:///a:b/c.sock?virtual_host=0", "http://h:1/v1"])
def test_without_secret_leaves_a_url_without_a_password_alone(url: str) -> None:
    """A person has to recognise what is shown."""
    assert without_secret(url) == url
