"""Figures for papers: their lines, size, fonts, and the points that are not there."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from hashzoo.cli.main import main
from hashzoo.errors import UsageError
from hashzoo.report import figures, plots, series
from hashzoo.report.style import COLOURS, LINES, MARKERS, Style, fonts_for, parse_size
from hashzoo.results import store
from hashzoo.results.by_dataset import read
from tests.results.test_study import method, study

CAT = "\u732b"


def a_font(path, letters, name):
    """A font that has these letters and no others."""
    pen = TTGlyphPen(None)
    for point, move in enumerate(((0, 0), (0, 500), (500, 500), (500, 0))):
        (pen.lineTo if point else pen.moveTo)(move)
    pen.closePath()
    glyphs = [".notdef", *(f"g{n}" for n in range(len(letters)))]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(glyphs)
    font.setupCharacterMap({ord(letter): f"g{n}" for n, letter in enumerate(letters)})
    font.setupGlyf(dict.fromkeys(glyphs, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(glyphs, (600, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": name, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    return path


@pytest.fixture
def cat_font(tmp_path, monkeypatch):
    """An installed font that has the letter CAT."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    font_manager.fontManager.addfont(a_font(tmp_path / "cat.ttf", CAT, "Cat Sans"))
    return "Cat Sans"


def classes(name):
    return Style().draw(lambda: figures.class_distribution(np.array([3, 2]), [name, "dog"], "x"))


def saved(figure, path):
    """Save with all warnings as errors, and return what is said."""
    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(figure, path, said.append)
    return said


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_letters_that_the_font_lacks_come_from_an_installed_font(ending, cat_font, tmp_path):
    figure = classes(CAT)
    (label,) = [text for text in figure.axes[0].get_xticklabels() if text.get_text() == CAT]
    assert label.get_fontfamily() == ["DejaVu Sans", cat_font]
    assert saved(figure, tmp_path / f"x{ending}") == []


@pytest.mark.parametrize("ending", [".png", ".pdf"])
def test_letters_that_no_font_has_are_named_in_one_line(ending, tmp_path):
    letter = "\U000e0fff" if not fonts_for({CAT}, "DejaVu Sans")[1] else CAT
    (line,) = saved(classes(letter), tmp_path / f"x{ending}")
    assert f"no installed font has the characters {letter}" in line
    assert "\n" not in line


def test_a_font_of_boxes_has_no_letters():
    assert not any("Last Resort" in name for name in fonts_for({CAT}, "DejaVu Sans")[0])


def test_the_size_and_the_fonts_of_a_figure_are_set_in_one_place(results):
    found = read(results)
    style = Style((3.4, 2.5), 8, "DejaVu Serif")
    for kind in ("pr", "bits", "bytes", "cost", "distances", "balance", "classes"):
        figure = plots.plot(kind, plots.select(found, {}), style)
        assert figure.get_size_inches().tolist() == [3.4, 2.5]
        sizes = {text.get_fontsize() for axes in figure.axes for text in (axes.xaxis.label, axes.yaxis.label)}
        assert sizes == {8.0}
        assert {axes.title.get_fontfamily()[0] for axes in figure.axes if axes.get_title()} == {"DejaVu Serif"}


@pytest.mark.parametrize("text", ["3", "3x", "axb", "0x2", "-1x2", "3.4x2.5x1", "1e9x2"])
def test_a_size_that_is_none_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match=r"such as 3\.4x2\.5"):
        parse_size(text)


def test_lines_of_highlighted_methods_differ_without_their_colour():
    axes = figures.new_figure(4, 3).subplots()
    points = [(n / 10, n / 20) for n in range(11)]
    names = [str(n) for n in range(len(COLOURS))]
    figures.draw_lines(axes, [(name, points, n) for n, name in enumerate(names)], "x", "y", markers=False)
    looks = {(str(line.get_linestyle()), line.get_marker()) for line in axes.get_lines()}
    assert len(looks) == len(COLOURS)
    assert len({marker for _, marker in looks}) == len({*map(str, LINES)}) == len(MARKERS)
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {*names}


def curve(empty, arrays=True):
    """Arrays of codes of 4 bits whose balls are empty up to a radius."""
    shares = np.array([0.0] * empty + [1 / (5 - empty)] * (5 - empty))
    recall = np.cumsum(shares)
    found = {"pr_recall": recall, "pr_precision": np.where(recall > 0, 0.5, 0)}
    return found | ({"distances_relevant": shares, "distances_other": shares} if arrays else {})


@pytest.mark.parametrize("arrays", [True, False])
@pytest.mark.parametrize("empty", range(5))
def test_a_radius_at_which_every_ball_is_empty_has_no_point(empty, arrays):
    assert series.first_found(curve(empty, arrays)) == empty


def test_a_precision_of_0_that_was_measured_is_drawn():
    found = curve(0) | {"pr_recall": np.array([0, 0.5, 1, 1, 1]), "pr_precision": np.array([0, 0.5, 0.5, 0.5, 0.5])}
    assert series.first_found(found) == 0


def test_curves_and_the_figure_of_a_cell_start_where_something_is_found(results, tmp_path, monkeypatch):
    file = next(file for file in sorted((results / "cells").glob("*itq*.json")))
    cell = store.read(file)
    target = store.write(tmp_path / "r", cell, store.arrays(file) | curve(2))
    first = next((board, board.bits[0]) for board in read(tmp_path / "r").boards)
    (found,) = series.pr_curves(read(tmp_path / "r"), *first)
    assert len(found.points) == 3
    drawn = []
    monkeypatch.setattr(figures, "pr_curve", lambda recall, *_: drawn.append(recall) or figures.new_figure(1, 1))
    main(["explain", "--run", str(target), "--figure", "pr", "-o", str(tmp_path / "x.pdf")])
    assert len(drawn[0]) == 3


def test_the_board_in_python_has_the_same_style(results):
    from hashzoo.api.board import Board

    board = Board(results, [], SimpleNamespace(), SimpleNamespace(metric_functions=dict, extra=()))
    figure = board.plot("pr", methods=["itq"], bits=8, style=Style((2, 2)))
    assert figure.get_size_inches().tolist() == [2, 2]
    assert [line.get_label() for line in figure.axes[0].get_lines()] == ["itq"]


def test_a_study_is_drawn_with_a_line_for_each_method_and_the_best_in_color():
    from hashzoo.report.study_figure import plot_study

    figure = plot_study(study(method("late", [0.4, 0.9, 0.2]), method("steady", [0.6, 0.5, 0.5])))
    (axes,) = figure.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert list(lines["late"]) == pytest.approx([0.4, 0.65, 0.9])
    assert list(lines["steady"]) == [0.6, 0.6, 0.6]
    with pytest.raises(UsageError, match="no method of this study 'stead'"):
        plot_study(study(method("steady", [0.6, 0.5])), ["stead"])
