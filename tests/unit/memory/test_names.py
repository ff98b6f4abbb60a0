"""Names of users in the store: stable, keyed, and never shared."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.errors import ConfigurationError
from threadline_worker.memory import user_namespace
from threadline_worker.memory.moves import moves_of_user
from threadline_worker.memory.names import UserNames
from threadline_worker.memory.routes import parse_routes

OLD, NEW = base64.b64encode(b"o" * 32).decode(), base64.b64encode(b"n" * 32).decode()


def test_without_a_key_the_name_is_that_of_0_1_0() -> None:
    expected = hashlib.sha256(b"ann@example.org").hexdigest()[:32]
    assert user_namespace("memories", user_id="ann@example.org", names=UserNames()) == ("memories", expected)
    assert UserNames().earlier("ann@example.org") == ()


def test_with_keys_the_first_names_and_the_others_were_names_before() -> None:
    names = UserNames.from_env({"THREADLINE_USER_HASH_KEYS": f"{NEW}, {OLD}"})
    before = UserNames.from_env({"THREADLINE_USER_HASH_KEYS": OLD})
    assert names.earlier("u") == (before.name("u"), UserNames().name("u"))
    assert len({*names.all("u")}) == 3
    routes = parse_routes("/memories/=user:rw,/team/=shared:rw")
    today = names.name("u")
    assert moves_of_user(names, routes, "u").pairs == (
        (f"memories.{before.name('u')}", f"memories.{today}"),
        (f"memories.{UserNames().name('u')}", f"memories.{today}"),
    )


@pytest.mark.parametrize("value", ["short", "not base64!", base64.b64encode(b"fifteen bytes..").decode(), "é"])
def test_a_key_that_is_none_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(ConfigurationError, match="THREADLINE_USER_HASH_KEYS") as caught:
        UserNames.from_env({"THREADLINE_USER_HASH_KEYS": value})
    assert value not in str(caught.value)
    assert OLD not in repr(UserNames.from_env({"THREADLINE_USER_HASH_KEYS": OLD}))


@given(st.lists(st.text(min_size=1), min_size=2, max_size=6, unique=True), st.booleans())
def test_any_strings_are_users_and_different_ones_have_different_names(users: list[str], keyed: bool) -> None:
    names = UserNames((b"k" * 32,) if keyed else ())
    found = [names.name(user) for user in users]
    assert len(set(found)) == len(users)
    assert all(len(name) == 32 and set(name) <= set("0123456789abcdef") for name in found)


def test_lookalikes_are_different_users() -> None:
    users = ["é", "e\u0301", "a", "а", "A", "a ", "../a", "a%2e"]  # the second a is Cyrillic
    assert len({UserNames().name(user) for user in users}) == len(users)
