"""What is sealed comes back with the key, at its place and unchanged, or not at all; no error shows a key or a text."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from threadline.contract.events import Event, decode_event, encode_event
from threadline.contract.job import JobRequest
from threadline.encryption import places
from threadline.encryption.keyring import parse_encryption_keys
from threadline.encryption.rows import opened_job, opened_options, sealed_json, sealed_message, sealed_options
from threadline.encryption.settings import vault_from_env
from threadline.encryption.vault import PLAIN, Vault, key_id_of
from threadline.encryption.wire import encoded_event, opened_event, opened_message, sealed_message_job
from threadline.errors import CannotDecrypt, ConfigurationError, InvalidJob
from threadline.settings import ClientSettings

KEYS = {"k2": bytes(range(32)), "k1": bytes(range(1, 33))}
VAULT = Vault(KEYS)
PLACE = places.job("input", "j")
SECRET = "canary-Zürich-0xC0FFEE"

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_text = st.text(st.characters(codec="utf-8"))
_places = st.lists(_text, min_size=3, max_size=6).map(tuple)


@given(_json.filter(lambda value: "\\ud" not in json.dumps(value)), _places)
def test_any_json_comes_back(value: Any, place: tuple[str, ...]) -> None:
    sealed = VAULT.seal(value, place)
    assert list(sealed) == ["sealed"]
    assert key_id_of(sealed) == "k2"
    assert VAULT.open(json.loads(json.dumps(sealed)), place) == value


@given(st.binary(), _places)
def test_any_bytes_come_back(plain: bytes, place: tuple[str, ...]) -> None:
    assert VAULT.open_bytes(VAULT.seal_bytes(plain, place), place) == plain


@given(st.binary(), st.data())
def test_whatever_is_changed_does_not_open(plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(VAULT.seal_bytes(plain, PLACE))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CannotDecrypt):
        VAULT.open_bytes(bytes(sealed), PLACE)


@given(st.binary(), st.integers(0, 200))
def test_a_part_of_it_does_not_open(plain: bytes, kept: int) -> None:
    sealed = VAULT.seal_bytes(plain, PLACE)
    assume(kept < len(sealed))
    with pytest.raises(CannotDecrypt):
        VAULT.open_bytes(sealed[:kept], PLACE)


@given(_places, _places)
def test_at_another_place_it_does_not_open(here: tuple[str, ...], there: tuple[str, ...]) -> None:
    assume(here != there)
    with pytest.raises(CannotDecrypt, match="changed, moved"):
        VAULT.open(VAULT.seal(SECRET, here), there)


@given(st.text(alphabet='ABCabc123+/=:{}"', max_size=80))
def test_what_only_looks_sealed_is_refused_with_a_word(text: str) -> None:
    for value in ({"sealed": text}, {"sealed": f"k2:AQ{text}"}, text, [text]):
        with pytest.raises(CannotDecrypt):
            VAULT.open(value, PLACE)


def test_the_same_text_is_never_sealed_to_the_same_bytes() -> None:
    assert len({VAULT.seal_text(b"yes", PLACE) for _ in range(1000)}) == 1000


def test_the_first_key_seals_and_all_open() -> None:
    of_before = Vault({"k1": KEYS["k1"]}).seal(SECRET, PLACE)
    assert VAULT.open(of_before, PLACE) == SECRET
    assert key_id_of(VAULT.seal(SECRET, PLACE)) == "k2"


def test_an_unknown_key_is_named_and_nothing_else_is_told() -> None:
    sealed = VAULT.seal(SECRET, PLACE)
    for without in (PLAIN, Vault({"k1": KEYS["k1"]})):
        with pytest.raises(CannotDecrypt, match=r"jobs\.input of j is sealed with the key 'k2'") as told:
            without.open(sealed, PLACE)
        assert told.value.reason == "unknown_key"
        assert SECRET not in str(told.value)


def test_another_key_under_the_same_id_does_not_open() -> None:
    with pytest.raises(CannotDecrypt, match="another key of that id"):
        Vault({"k2": bytes(32)}).open(VAULT.seal(SECRET, PLACE), PLACE)


def test_plaintext_is_refused_unless_a_migration_reads_it() -> None:
    with pytest.raises(CannotDecrypt, match="is plaintext, which is refused") as told:
        VAULT.open(SECRET, PLACE)
    assert SECRET not in str(told.value)
    migrating = Vault(KEYS, reads_plaintext=True)
    assert migrating.open(SECRET, PLACE) == SECRET
    assert SECRET not in json.dumps(migrating.seal(SECRET, PLACE))


def test_without_keys_everything_passes_but_what_would_look_sealed() -> None:
    assert PLAIN.seal({"sealed": "yes"}, PLACE) == {"sealed": "yes"}
    assert PLAIN.open({"sealed": "yes"}, PLACE) == {"sealed": "yes"}
    with pytest.raises(InvalidJob, match="encryption writes"):
        PLAIN.seal(VAULT.seal(1, PLACE), PLACE)


@pytest.mark.parametrize("shown", [repr(VAULT), str(VAULT), repr(ClientSettings(vault=VAULT)), repr(vars(PLAIN))])
def test_no_key_is_ever_shown(shown: str) -> None:
    for key in KEYS.values():
        assert base64.b64encode(key).decode() not in shown
        assert repr(key) not in shown
        assert key.hex() not in shown


def _entry(key_id: str, key: bytes) -> str:
    return f"{key_id}:{base64.b64encode(key).decode()}"


def test_keys_are_read_in_their_order() -> None:
    text = ", ".join(_entry(key_id, key) for key_id, key in KEYS.items())
    assert list(parse_encryption_keys(text).items()) == list(KEYS.items())
    assert parse_encryption_keys("") == {}


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "k1:",
        "k1:AAAA",
        _entry("k1", bytes(31)),
        _entry("k:1", bytes(32)),
        _entry("", bytes(32)),
        ",",
        " , ",
    ],
)
def test_what_is_no_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ConfigurationError, match="THREADLINE_ENCRYPTION_KEYS") as told:
        vault_from_env({"THREADLINE_ENCRYPTION_KEYS": text})
    assert "AAAA" not in str(told.value)


def test_two_keys_of_one_id_and_an_unknown_word_are_refused() -> None:
    twice = f"{_entry('k1', bytes(32))},{_entry('k1', bytes(32))}"
    with pytest.raises(ConfigurationError, match="twice"):
        vault_from_env({"THREADLINE_ENCRYPTION_KEYS": twice})
    with pytest.raises(ConfigurationError, match="THREADLINE_ENCRYPTION_PLAINTEXT"):
        vault_from_env({"THREADLINE_ENCRYPTION_PLAINTEXT": "maybe"})


def test_the_settings_of_a_client_have_the_vault() -> None:
    env = {"REDIS_URL": "redis://h", "THREADLINE_ENCRYPTION_KEYS": _entry("k1", bytes(32))}
    vault = ClientSettings.from_env(env).vault
    assert (vault.on, vault.reads_plaintext, vault.key_id) == (True, False, "k1")
    assert ClientSettings.from_env({**env, "THREADLINE_ENCRYPTION_PLAINTEXT": "read"}).vault.reads_plaintext
    assert not ClientSettings.from_env({"REDIS_URL": "redis://h"}).vault.on


def test_a_fingerprint_cannot_be_guessed_and_is_known_under_every_key() -> None:
    digest = "ab" * 32
    [now, before] = VAULT.fingerprints(digest)
    assert digest not in now
    assert Vault({"k1": KEYS["k1"]}).fingerprints(digest) == [before]
    assert Vault(KEYS, reads_plaintext=True).fingerprints(digest) == [now, before, digest]
    assert PLAIN.fingerprints(digest) == [digest]


# Rows:


def test_a_row_of_jobs_is_opened_column_by_column() -> None:
    row = {
        "job_id": "j",
        "code": "error",
        "message": sealed_message(VAULT, SECRET, "j"),
        **{name: json.loads(sealed_json(VAULT, name, {name: SECRET}, "j")) for name in ("input", "metadata", "result")},
        "interrupts": None,
    }
    assert SECRET not in json.dumps(row, ensure_ascii=False)
    opened = opened_job(VAULT, row)
    assert opened["message"] == SECRET
    assert opened["result"] == {"result": SECRET}
    for swapped in ({**row, "job_id": "other"}, {**row, "input": row["metadata"]}):
        with pytest.raises(CannotDecrypt):
            opened_job(VAULT, swapped)


def test_only_what_the_ledger_itself_says_may_be_plain() -> None:
    said = {"job_id": "j", "code": "poisoned", "message": "its worker died 3 times"}
    assert opened_job(VAULT, said) == said
    with pytest.raises(CannotDecrypt):
        opened_job(VAULT, {**said, "code": "error"})


def test_a_long_message_still_opens_where_a_webhook_has_cut_it() -> None:
    sealed = sealed_message(VAULT, "ü" * 10_000, "j")
    assert sealed is not None
    assert len(sealed) <= 8_192
    opened = opened_job(VAULT, {"job_id": "j", "code": "error", "message": sealed})["message"]
    assert opened == "ü" * 2_950


def test_options_that_may_hold_words_are_sealed_and_the_others_stay() -> None:
    options = {"stream_modes": ["updates"], "webhook_url": "https://a.example/h", "context": {"said": SECRET}}
    sealed = sealed_options(VAULT, options, "t")
    assert sealed.keys() == {"stream_modes", "webhook_url", "sealed"}
    assert opened_options(VAULT, sealed, "t") == options
    with pytest.raises(CannotDecrypt):
        opened_options(VAULT, options, "t")
    assert sealed_options(PLAIN, options, "t") == options == opened_options(PLAIN, options, "t")


# Redis:


def _event(data: Any, **more: Any) -> Event:
    return Event(**{"id": "2-17", "job_id": "j", "thread_id": "t", "type": "updates", "step": 3, "data": data, **more})


def test_an_event_stays_the_contracts_but_for_its_data() -> None:
    raw = encoded_event(VAULT, _event({"said": SECRET}))
    plain = json.loads(encode_event(_event(None)))
    found = json.loads(raw)
    assert re.fullmatch(r"k2:[A-Za-z0-9+/]+={0,2}", found["data"]["sealed"])
    assert {**found, "data": None, "at": None} == {**plain, "at": None}
    assert opened_event(VAULT, decode_event(raw)).data == {"said": SECRET}


def test_an_event_is_bound_to_its_job_position_and_type() -> None:
    event = decode_event(encoded_event(VAULT, _event(SECRET)))
    for other in ({"id": "2-18"}, {"job_id": "other"}, {"type": "values"}):
        with pytest.raises(CannotDecrypt):
            opened_event(VAULT, msgspec.structs.replace(event, **other))
    with pytest.raises(CannotDecrypt, match="plaintext"):
        opened_event(VAULT, _event(None))


def test_data_over_a_mebibyte_is_told_as_truncated_and_less_is_whole() -> None:
    whole = opened_event(VAULT, decode_event(encoded_event(VAULT, _event("x" * 1_000_000)))).data
    assert len(whole) == 1_000_000
    cut = opened_event(VAULT, decode_event(encoded_event(VAULT, _event("x" * 1_100_000)))).data
    assert cut == {"truncated": True, "bytes": 1_100_002}


def test_a_message_shows_ids_alone() -> None:
    job = JobRequest(job_id="j", agent="chat", input=SECRET, thread_id="t", metadata={"said": SECRET}).as_json()
    sealed = sealed_message_job(VAULT, job)
    assert SECRET not in json.dumps(sealed, ensure_ascii=False)
    assert "input" not in sealed
    assert opened_message(VAULT, sealed) == job
    with pytest.raises(CannotDecrypt, match="plaintext"):
        opened_message(VAULT, job)
    with pytest.raises(CannotDecrypt, match="'k2'"):
        opened_message(PLAIN, sealed)
    with pytest.raises(CannotDecrypt):
        opened_message(VAULT, {**sealed, "job_id": "other"})
