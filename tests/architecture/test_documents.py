"""README and docs speak of settings, addresses, commands, files and columns that there are, and of all that matter."""

import re
from pathlib import Path

import pytest
from django.core.management import get_commands
from django.urls import Resolver404, resolve

from evidence import erasable

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {page.name: page.read_text() for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
B = "/runtime/go-pilot/rollback-drill-notifications"
SHORT = {"A": f"{B}/acknowledgements/audit-delivery", "B": B}


def test_every_setting_of_the_environment_is_in_one_table() -> None:
    source = (ROOT / "cavra_site" / "settings.py").read_text()
    read = re.findall(r'(?:\benv\.\w+|\brequired)\(\s*"([A-Z_]+)"', source)
    assert len(read) > 15
    assert sorted(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE)) == sorted(read)


@pytest.mark.parametrize("page", PAGES)
def test_every_address_leads_somewhere(page: str) -> None:
    named = re.findall(r"[`\s](/api/v1/[^\s`,;)…]+)", PAGES[page])
    named += [
        SHORT[short] + rest for short, rest in re.findall(r"`(?:GET |POST )([AB])(/[^`]*)?`", PAGES[page])
    ]
    for address in named:
        if address.endswith("/"):  # it speaks of all below
            continue
        try:
            resolve(re.sub(r"\{\w+\}", "x", address.partition("?")[0]))
        except Resolver404:
            pytest.fail(f"there is no {address}")


def test_addresses_are_found_in_the_text() -> None:
    assert "/api/v1/connectors/{key}/canary" in README
    assert "`POST A/retry-plan`" in README


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_there(page: str) -> None:
    assert set(re.findall(r"manage\.py ([a-z_]+)", PAGES[page])) <= get_commands().keys()


def test_every_file_to_look_at_is_there() -> None:
    table = README.partition("## Where to look")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| .* \| (.*) \|$", table, re.MULTILINE):
        folder = ROOT
        for name in re.findall(r"`([\w*./]+(?:\.py|\.md|/))`", row):
            found = [*ROOT.glob(name), *folder.glob(name)]
            assert found, name
            folder = found[0] if found[0].is_dir() else found[0].parent


def test_every_column_that_goes_with_a_record_is_named() -> None:
    page = PAGES["erasing.md"]
    for place in erasable.PLACES:
        model = place.model.partition(".")[2]
        rows = [row for row in page.splitlines() if row.startswith(f"| `{model}.")]
        for column in place.columns:
            assert any(f"{column}`" in row for row in rows), f"{model}.{column}"
