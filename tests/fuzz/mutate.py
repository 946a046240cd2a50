"""Bytes that are almost right: an input of the corpus, changed in a few places."""

from hypothesis import strategies as st

WORDS = [
    b"", b"\x00", b"\xff\xfe", b"\xf0\x9f\x92\xa9", b"null", b"true", b"-1", b"1e999", b".nan",
    b".inf", b"9" * 30, b"${x}", b"${oc.env:HOME}", b"${", b"}", b"[", b"]", b"{", b"{}", b"[]",
    b'"', b"'", b": ", b"\n", b"\n  ", b"\t", b"- ", b"#", b"&a ", b"*a", b"<<: *a", b"%", b"~",
    b"!!python/name:os.system", b"_component_: ", b"../../..", b"$tensor", b"$items", b"$tuple",
]  # fmt: skip
"""What parsers stumble over."""


@st.composite
def mutated(draw, seeds):
    """One of the seeds after a few edits: bytes replaced, cut out, repeated, or words put in."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 4, 16, 200])))
        match draw(st.sampled_from(["word", "bytes", "repeat", "cut", "end"])):
            case "word":
                data[start:end] = draw(st.sampled_from(WORDS))
            case "bytes":
                data[start:end] = draw(st.binary(max_size=8))
            case "repeat":
                data[start:start] = data[start:end] * draw(st.integers(1, 20))
            case "cut":
                del data[start:end]
            case "end":
                del data[start:]
    return bytes(data)
