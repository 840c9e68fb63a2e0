"""Strings that are legal and still break careless programs.

Every one of them may stand in a name or a profile and has to come back byte for byte.
"""

from __future__ import annotations

HOSTILE: tuple[str, ...] = (
    # right to left, and the marks that turn the rest of a line around
    "مرحبا بالعالم",
    "שלום עולם abc 123",
    "user\u202egnp.exe",
    "\u2066isolated\u2069 \u200fmark",
    # combining: decomposed letters, stacked marks, Hangul jamo
    "Ame\u0301lie Nu\u0308n\u0303ez",
    "Z" + "\u0300\u0301\u0302\u0303" * 12 + "algo",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "\u0345\u0301leading marks",
    # 4 bytes in UTF-8: emoji with joiners and skin tones, old scripts, the last code point
    "👩🏽\u200d👩🏿\u200d👧🏻\u200d👦 family",
    "𓀀𓂀 𐎠𐎼 𝒻𝒶𝓃𝒸𝓎",
    "𠜎𠜱𠝹𠱓 rare Han",
    "\U0010ffff last",
    # letters that change length or identity when their case changes
    "İstanbul ıssız",
    "STRASSE straße \u1e9e",
    "ﬀﬁ ligatures, ǅ title case",
    "K (kelvin) \u212a",
    # invisible and odd spaces
    "zero\u200bwidth\u200cjoin\u200der",
    "\u00a0no-break\u2003em\u3000ideographic",
    "\ufeffbyte order mark",
    "line\u2028separator\u2029paragraph\u0085next",
    "tab\tnew\nline\r\nreturn",
    "\x01\x02\x07\x08\x1b[31mcontrol\x7f",
    "\ufdd0\uffff noncharacters \ufffd",
    # text that is code elsewhere
    "Robert'); DROP TABLE users;--",
    "' OR '1'='1",
    "$1 %s %(name)s ? :name {0} ${jndi:ldap://example.invalid/a}",
    "/*mine*/ -- TRUE",
    "E'\\x41' \\. \\N",
    '<script>alert("1")</script>',
    '"><img src=x onerror=alert(1)>',
    "&lt;b&gt; &amp; &#0; %00 %2e%2e%2f",
    "../../etc/passwd",
    "=cmd|' /C calc'!A0",
    # JSON inside JSON, and an escape for NUL that isn't one
    '{"a": "\\u0000", "b": [null]}',
    "\\u0000 \\ud800 \\\\",
    # words that loaders like to turn into something else
    "null",
    "NaN",
    "true",
    "1e309",
    "0x1F",
    "12345678901234567890123456789",
    "2026-02-30",
)

LONG_TEXTS: tuple[str, ...] = (
    "long " * 600,
    "ж" * 3000,
    "🦆" * 1500,
    "a" * 4000,
)
