import pytest

from nanobatch_runtime.redis import RedisSettings
from nanobatch_runtime.settings import SettingsError, load

VARIABLES = ("NANOBATCH_REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_DB")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, ""),
        ({"NANOBATCH_REDIS_URL": "redis://u:p@h:1/2"}, "redis://u:p@h:1/2"),
        ({"NANOBATCH_REDIS_URL": " rediss://h "}, "rediss://h"),
        ({"NANOBATCH_REDIS_URL": "unix:///run/redis.sock"}, "unix:///run/redis.sock"),
        ({"REDIS_HOST": "cache"}, "redis://cache:6379/0"),
        ({"REDIS_HOST": "cache", "REDIS_PORT": "7000", "REDIS_DB": "3"}, "redis://cache:7000/3"),
        ({"REDIS_HOST": "::1"}, "redis://[::1]:6379/0"),
        # Kubernetes sets it so beside a service of that name.
        ({"REDIS_HOST": "redis", "REDIS_PORT": "tcp://10.0.0.1:6380"}, "redis://redis:6380/0"),
        ({"REDIS_PORT": "tcp://10.0.0.1:6380", "REDIS_DB": "x"}, ""),
        ({"NANOBATCH_REDIS_URL": "redis://h", "REDIS_HOST": "other", "REDIS_PORT": "x"}, "redis://h"),
    ],
)
def test_redis_is_found_by_its_url_or_by_its_parts(environment, given, url):
    environment(**given)
    assert load(RedisSettings).redis == url


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"NANOBATCH_REDIS_URL": "http://u:s3cret@h"}, "NANOBATCH_REDIS_URL"),
        ({"NANOBATCH_REDIS_URL": "s3cret"}, "NANOBATCH_REDIS_URL"),
        ({"NANOBATCH_REDIS_URL": "redis://:s3cret@h:port"}, "NANOBATCH_REDIS_URL"),
        ({"REDIS_HOST": "h", "REDIS_PORT": "0"}, "REDIS_PORT"),
        ({"REDIS_HOST": "h", "REDIS_PORT": "99999"}, "REDIS_PORT"),
        ({"REDIS_HOST": "h", "REDIS_DB": "-1"}, "REDIS_DB"),
    ],
)
def test_what_is_no_redis_is_refused_by_its_variable_and_no_password_is_repeated(environment, given, named):
    environment(**given)
    with pytest.raises(SettingsError) as refused:
        load(RedisSettings)
    assert str(refused.value).startswith(f"{named}: write")
    assert "\n" not in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_password_is_not_shown_with_the_settings(environment):
    environment(NANOBATCH_REDIS_URL="redis://u:s3cret@h")
    assert "s3cret" not in repr(load(RedisSettings))
