"""docs/connectors.md says of each product what its adapter says."""

from pathlib import Path

import pytest

from evidence.connectors.products import PRODUCTS
from evidence.enums import Product

WORDS = {"authorization_ref": "authorization", "token_ref": "token", "api_key_ref": "API key"}
ROWS = {
    cells[0].strip("`"): cells
    for line in Path("docs/connectors.md").read_text().splitlines()
    if line.startswith("| `") and len(cells := [cell.strip() for cell in line.strip("|").split(" | ")]) == 8
}


def credential(product: Product) -> str:
    """The cell about credentials."""
    adapter = PRODUCTS[product]
    words = [WORDS[name] for name in adapter.credentials]
    if adapter.secret_url:
        words.append("the address itself")
    if adapter.signs:
        words.append("signing secret")
    return (", ".join(words) or "none") + (" (needed)" if adapter.needs_credential else "")


def options(product: Product) -> str:
    """The cell about options, needed ones with a star."""
    known = PRODUCTS[product].options.items()
    return ", ".join(f"`{name}`" + ("\\*" if option.required else "") for name, option in known) or "none"


@pytest.mark.parametrize("product", tuple(Product))
def test_the_table_says_what_the_adapter_says(product: Product) -> None:
    adapter = PRODUCTS[product]
    said = ROWS[product.value]
    expected = [
        f"`{product.value}`",
        said[1],
        credential(product),
        options(product),
        "by `max_bytes`" if adapter.limit else f"{adapter.max_body:,}",
        adapter.assurance.value,
        adapter.earned,
        "yes" if adapter.question else f"no: {'; '.join(adapter.against_asking)}",
    ]
    assert said == expected, f"docs/connectors.md should have:\n| {' | '.join(expected)} |"
    assert all(
        f"{scheme}://" in said[1]
        for scheme in adapter.schemes
        if scheme != "http" or product is Product.WEBHOOK
    )
