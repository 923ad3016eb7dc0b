import pytest
from pydantic import Field, SecretStr

from nanobatch_runtime.settings import Settings, SettingsError, load

KEY = "aa" * 32


class KeySettings(Settings):
    key: SecretStr = Field(SecretStr("none"), validation_alias="ENCRYPTION_KEY")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("ENCRYPTION_KEY", raising=False)
    monkeypatch.setenv("NANOBATCH_SECRETS_DIR", str(tmp_path))
    return tmp_path


def key() -> str:
    return load(KeySettings).key.get_secret_value()


def test_a_file_stands_for_the_variable_of_its_name(folder):
    (folder / "ENCRYPTION_KEY").write_text(f"{KEY}\n")
    assert key() == KEY


def test_a_secret_is_read_where_kubernetes_mounts_it(folder):
    # A mounted Secret is a link to a link, so that all of its files change at once.
    (folder / "..2026_11_21").mkdir()
    (folder / "..2026_11_21/ENCRYPTION_KEY").write_text(KEY)
    (folder / "..data").symlink_to("..2026_11_21")
    (folder / "ENCRYPTION_KEY").symlink_to("..data/ENCRYPTION_KEY")
    assert key() == KEY


def test_the_environment_wins_over_a_file(folder, monkeypatch):
    (folder / "ENCRYPTION_KEY").write_text(KEY)
    monkeypatch.setenv("ENCRYPTION_KEY", "bb" * 32)
    assert key() == "bb" * 32


def test_what_neither_names_has_its_default(folder, monkeypatch):
    assert key() == "none"
    monkeypatch.setenv("NANOBATCH_SECRETS_DIR", "")
    assert key() == "none"


def test_a_folder_that_is_not_there_is_named(folder, monkeypatch):
    monkeypatch.setenv("NANOBATCH_SECRETS_DIR", str(folder / "nowhere"))
    with pytest.raises(SettingsError, match=r"NANOBATCH_SECRETS_DIR: there is no folder .*nowhere"):
        key()


def test_a_file_that_cannot_be_read_is_named(folder, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied", str(folder / "ENCRYPTION_KEY"))

    (folder / "ENCRYPTION_KEY").write_text(KEY)
    monkeypatch.setattr("pathlib.Path.read_text", refuse)  # root may read everything
    with pytest.raises(SettingsError, match=r"NANOBATCH_SECRETS_DIR: .* Permission denied: .*ENCRYPTION_KEY"):
        key()
