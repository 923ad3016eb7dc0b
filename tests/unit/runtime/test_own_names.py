from nanobatch_runtime.own_names import OwnNames


def test_a_default_port_may_be_left_out_and_no_other() -> None:
    names = OwnNames.of("10.0.0.5:8080", "https://pictures.example/nb")
    assert {"10.0.0.5:8080", "localhost:8080", "pictures.example", "pictures.example:443"} <= names.hosts
    assert {"https://pictures.example", "http://127.0.0.1:8080"} <= names.origins
    assert not {"10.0.0.5", "localhost", "pictures.example:80"} & names.hosts
    assert "http://pictures.example" not in names.origins
    assert "localhost" in OwnNames.of("127.0.0.1:80", "").hosts
    assert {"http://localhost", "http://[::1]:80"} <= OwnNames.of("127.0.0.1:80", "").origins
    told = OwnNames.of("10.0.0.5:8080", "https://Pictures.Example:443")
    assert {"pictures.example", "pictures.example:443"} <= told.hosts
    assert "https://pictures.example" in told.origins
    assert "odd.example" not in OwnNames.of("10.0.0.5:8080", "https://odd.example:80").hosts
