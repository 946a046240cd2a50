import pytest

from ebft.data.catalogue import has_words, read_catalogues, words_of
from ebft.data.gettext import Gettext
from ebft.errors import UserError

BOTH = {"de": "German", "fr": "French"}
HEADER = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n\n'


def write(folder, catalogue, language, messages, more=""):
    path = folder / catalogue / "locale" / language / "LC_MESSAGES"
    path.mkdir(parents=True, exist_ok=True)
    entries = "".join(f'msgid "{a}"\nmsgstr "{b}"\n\n' for a, b in messages)
    (path / "django.po").write_text(HEADER + entries + more, encoding="utf-8")
    return path / "django.po"


def shop(count, start=0):
    return [(f"Buy thing number w{i}x", f"Kaufe Ding w{i}x") for i in range(start, start + count)]


def sources(examples):
    return {words_of(example.prompt.split("\n")[1].split(": ")[1]) for example in examples}


def test_messages_that_are_no_sentences_are_left_out(tmp_path):
    skipped = [
        ("Yes", "Yes"),                   # not translated
        ("%(count)s: %s", "%(count)s. %s"),   # placeholders alone
        ("<b>%s</b>&nbsp;–", "–&nbsp;<b>%s</b>"),
        ("Empty message", ""),
    ]  # fmt: skip
    more = (
        '#, fuzzy\nmsgid "Guessed text"\nmsgstr "Geratener Text"\n\n'
        'msgid "one apple"\nmsgid_plural "%d apples"\n'
        'msgstr[0] "ein Apfel"\nmsgstr[1] "%d Äpfel"\n\n'
        'msgctxt "menu"\nmsgid "Open file"\nmsgstr "Datei öffnen"\n\n'
        '#~ msgid "Old text"\n#~ msgstr "Alter Text"\n'
    )
    write(tmp_path, "app", "de", [("Hello %(name)s", "Hallo %(name)s"), *skipped], more)
    found = list(read_catalogues(tmp_path, "de"))
    assert [(m.source, m.translation) for m in found] == [
        ("Hello %(name)s", "Hallo %(name)s"),
        ("Open file", "Datei öffnen"),
    ]
    assert {m.catalogue for m in found} == {"app/django"}


def test_a_mo_file_reads_like_its_po_file(tmp_path):
    import polib

    po = write(tmp_path, "app", "de", shop(5))
    before = {(m.source, m.translation) for m in read_catalogues(tmp_path, "de")}
    polib.pofile(str(po)).save_as_mofile(str(po.with_suffix(".mo")))
    assert len(list(read_catalogues(tmp_path, "de"))) == 5  # the .po file alone
    po.unlink()
    assert {(m.source, m.translation) for m in read_catalogues(tmp_path, "de")} == before


@pytest.mark.parametrize(
    ("text", "words"),
    [("%(name)s", False), ("%d %s", False), ("{count}", False), ("<br>", False), ("a b", False),
     ("No.", True), ("日本語", True), ("Seite %d", True)],
)  # fmt: skip
def test_what_has_words(text, words):
    assert has_words(text) is words


def test_prompt_and_completion(tmp_path):
    write(tmp_path, "app", "de", shop(4))
    example = Gettext(path=tmp_path)().train[0]
    assert example.prompt.startswith("Translate from English to German.\nEnglish: Buy thing")
    assert example.prompt.endswith("\nGerman:")
    assert example.completion.startswith(" Kaufe Ding")
    assert example.cluster.startswith("buy thing"), "held out in all languages or in none"
    reverse = Gettext(path=tmp_path, into_source=True, template="{target} of {text}:")().train[0]
    assert reverse.prompt.startswith("English of Kaufe Ding")
    assert reverse.completion.startswith(" Buy thing")


def test_planted_leaks_are_found(tmp_path):
    write(tmp_path, "app", "de", shop(60))
    write(tmp_path, "app", "fr", [(a, b.replace("Kaufe Ding", "Achetez")) for a, b in shop(60)])
    # The same messages in another catalogue: in capitals, with markup, with another translation.
    write(tmp_path, "other", "de", [(f"<b>{a.upper()}!</b>", f"{b}?") for a, b in shop(60)])
    # Other sources with the same translation; and what the catalogue apart has.
    write(tmp_path, "synonyms", "de", [(a.replace("Buy", "Purchase"), b) for a, b in shop(60)])
    write(tmp_path, "apart", "de", [*shop(10, start=55), *shop(5)])
    splits = Gettext(
        path=tmp_path,
        languages={"de": "German", "fr": "French"},
        held_out=0.2,
        out_of_distribution=("apart",),
    )()
    train, held_out, apart = map(
        sources, (splits.train, splits.held_out, splits.out_of_distribution)
    )
    assert len(apart) == 15
    assert len(held_out) >= 10
    assert not train & held_out
    assert not train & apart
    assert not held_out & apart
    translations = {e.completion.strip("? ") for e in splits.train if ":de:" in e.name}
    for example in (*splits.held_out, *splits.out_of_distribution):
        assert example.completion.strip("? ") not in translations
    names = [e.name for part in (splits.train, splits.held_out) for e in part]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "nowhere"}, r"data.path = nowhere: no such folder"),
        ({"package": "no_such_package"}, r"or run: pip install --no-deps no_such"),
        (
            {"languages": {"de": "German", "nl": "Dutch"}},
            r"data.languages: nl: nothing to train on",
        ),
        ({"out_of_distribution": ("apps",)}, r"apps: no such catalogue; there are: app/django"),
    ],
)
def test_what_is_not_there_is_said(tmp_path, options, message):
    write(tmp_path, "app", "de", shop(4))
    given = {"path": tmp_path} | options
    if "package" in options:
        del given["path"]
    with pytest.raises(UserError, match=message):
        Gettext(**given)()


def test_a_template_without_the_text_is_refused():
    for template in ("Translate.", "{txt}", "{text"):
        with pytest.raises(ValueError, match=r"needs \{text\}|in braces"):
            Gettext(template=template)


@pytest.mark.parametrize("folder", ["*", "d?", "..", "", "/de", "[a-z]", "de/../fr"])
def test_a_language_is_the_name_of_a_folder(folder):
    with pytest.raises(ValueError, match=r"is not a folder of a locale; give one, such as de or"):
        Gettext(languages={folder: "German"})


def test_the_catalogues_of_django():
    splits = Gettext(out_of_distribution=("contrib/auth",))()
    assert len(splits.train) > 300
    assert len(splits.out_of_distribution) > 50
    assert all("contrib/auth" in e.name for e in splits.out_of_distribution)
    assert not any("contrib/auth" in e.name for e in (*splits.train, *splits.held_out))


def test_a_package_is_not_imported(tmp_path, monkeypatch):
    """What is inside of one is found in its folder."""
    (tmp_path / "gettext_package").mkdir()
    (tmp_path / "gettext_package" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match="installed; give another, or run: pip install --no-deps gettext_pack"
    ):
        Gettext(package="gettext_package.inner")()
    (tmp_path / "gettext_package" / "inner").mkdir()
    with pytest.raises(UserError, match=r"nothing to train on under .*gettext_package/inner"):
        Gettext(package="gettext_package.inner")()
