from __future__ import annotations

import pytest

from agent.notify.masking import describe_url, mask_url_parts


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mailto://ops:S3cret@mail.example.org:587/?to=a@b.org", "mailto://mail.example.org:587/…"),
        ("json://127.0.0.1:8080/hooks/S3cret", "json://127.0.0.1:8080/…"),
        ("jsons://[2001:db8::1]:8443/S3cret", "jsons://[2001:db8::1]:8443/…"),
        ("ntfys://ntfy.example.org/S3cret?tags=ops", "ntfys://ntfy.example.org/… (tag ops)"),
        ("ntfy://S3cretTopic", "ntfy://…"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/S3cret/#ops", "slack://…"),
        ("tgram://123456789:S3cret/12315544", "tgram://…"),
        ("pover://S3cretUser@S3cretToken", "pover://…"),
        ("mailto://ops:S3c/ret@example.org", "mailto://…"),
        ("json://ops:S3c@ret@example.org/x", "json://example.org/…"),
        ("  JSON://localhost/S3cret", "json://localhost/…"),
        ("S3cret", "something that is not a URL"),
        ("", "something that is not a URL"),
        ("json://", "json://…"),
        ("json://x.y:S3cret/", "json://…"),
        ("json://S3cret.TOKEN.value/", "json://…"),
        ("json://a.example.org?tag=S3cret/%20", "json://a.example.org/…"),
    ],
)
def test_a_url_is_shown_by_scheme_host_and_tag_only(url, shown):
    assert describe_url(url) == shown
    assert "S3c" not in shown


@pytest.mark.parametrize(
    ("url", "said", "kept"),
    [
        (
            "mailto://ops:p%40ss%2Fw0rd@mail.example.org/?to=a@b.org",
            "535 no p@ss/w0rd nor p%40ss%2Fw0rd for ops at mail.example.org to a@b.org",
            "535 no *** nor *** for ops at mail.example.org to a@b.org",
        ),
        ("mailto://ops:x@mail.example.org", "6x6", "6***6"),
        (
            "json://u5er:p4ss@h.example.org/hooks/T0ken/v1?+Key=H3ader&format=text",
            "http://h.example.org/hooks/T0ken/v1 text H3ader u5er p4ss",
            "http://h.example.org/***/***/v1 text *** *** ***",
        ),
        ("slack://T1JJ3T3L2/A1BRTD4JD/T0k", "T1JJ3T3L2 A1BRTD4JD", "*** ***"),
        ("json://h.example.org/a%20b%20c", "no a b c here", "no *** here"),
        ("json://h.example.org/?x=1", "password=hunter2 and\n\x1b[31mred", "password=*** and red"),
        ("no url at all", "see no url at all", "see ***"),
        ("", "nothing to mask", "nothing to mask"),
    ],
)
def test_an_answer_loses_every_part_of_the_url_that_may_be_secret(url, said, kept):
    assert mask_url_parts(said, url) == kept
