from __future__ import annotations

from datetime import timedelta

import pytest

from nanobatch_generator.domain import Lease, LeaseRef
from nanobatch_runtime.ids import new_id


@pytest.fixture
def make_lease():
    def make(**fields):
        values = {
            "ref": LeaseRef(new_id(), new_id()),
            "duration": timedelta(seconds=30),
            "execution_id": "execution",
            "user_id": "user",
            "model": "sandbox",
            "provider": "scripted",
            "prompt": "a banana",
            "timeout": timedelta(seconds=20),
        }
        return Lease(**(values | fields))

    return make
