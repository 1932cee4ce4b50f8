"""Every promise of the README has figures: a test file that exists, and what its exhaustive form showed."""

from .figures import ROOT, promised

FIGURES = (ROOT / "tests" / "FIGURES.md").read_text(encoding="utf-8")


def test_every_file_that_the_table_names_has_its_figures():
    assert len(promised()) > 8
    for file in promised():
        assert (ROOT / file).is_file()
        assert f"\n{file}: 0 failed, " in FIGURES, file
